// The tensors of an exported checkpoint, as recipes for their bytes: pieces of the original's and values written over
// them. No weights are read here but the few that a patch asks for when it is made. Pure; any thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/recipe.h"
#include "engine/surgery/removal.h"

namespace switchyard {

struct OutputTensor {
  struct Piece {
    int shard = 0;
    uint64_t begin = 0, end = 0;  // bytes from the start of the shard
  };
  // Values over a part of the tensor, whose offsets and strides count in the tensor as written.
  struct Patch {
    TensorRef target;
    std::function<Result<std::vector<float>>(const WeightStore&)> values;
  };
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int shard = 0;  // that it is written to
  std::vector<Piece> pieces;
  std::vector<Patch> patches;

  uint64_t bytes() const;
};
using OutputTensors = std::map<std::string, OutputTensor>;

// kUsage where the file's order of a tensor does not let experts be taken out.
Result<OutputTensors> output_tensors(const Checkpoint& checkpoint, const Recipe& recipe, const std::vector<KeptExperts>& kept);

}  // namespace switchyard

// Where one tensor of a checkpoint lies. Plain data; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/dtype.h"

namespace switchyard {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the shard file
  int shard = 0;                // index into Checkpoint::shards
};

// "[64, 2048]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace switchyard

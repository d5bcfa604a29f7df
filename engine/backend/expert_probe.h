// What a backend that keeps its experts apart offers beside forward(): their outputs on given inputs, all of them, for
// criteria that ask what an expert would have given (NAEE, specs/analyses.md A15). Engine thread, or the caller's where no
// session runs.
#pragma once

#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

class ExpertProbe {
 public:
  virtual ~ExpertProbe() = default;
  // inputs: [tokens, hidden], what the row's router read (RouterTap). Returns [tokens, E, hidden], before weights and
  // scales, of the checkpoint's own experts. kUsage: experts in the attention, or whose input is weighted.
  virtual Result<std::vector<float>> expert_outputs(int row, std::span<const float> inputs) = 0;
};

}  // namespace switchyard

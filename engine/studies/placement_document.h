// Reading what `place` wrote: which GPUs hold the experts. Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/placement/traffic.h"
#include "engine/trace/trace_json.h"

namespace switchyard {

struct PlacedExperts {
  ExpertPlaces places;
  std::vector<int> layers;      // the model's, of each row; 0, 1, … where the document does not name them
  std::vector<int> contiguous;  // [E]: the GPU of each expert without a placement; empty: they do not divide evenly
};

// For a model of so many routing rows and experts on so many GPUs. kUsage: made for another; kMalformed: not a
// placement.
Result<ExpertPlaces> read_placement(const JsonView& document, int rows, int experts, int gpus);
// Sizes as the document has them.
Result<PlacedExperts> placed_experts(const Document& document);

}  // namespace switchyard

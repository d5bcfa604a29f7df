// The way of a request's tokens through the sublayers: layers that run more than once or not at all, parts of a model,
// layers whose experts are off, and where the host takes part. Pure; engine thread.
#pragma once

#include <vector>

#include "engine/backend/cuda/cache.h"
#include "engine/backend/cuda/executor.h"

namespace switchyard::cuda {

// passes: of Recipe; empty: every layer once.
KeyLayout key_layout(const ModelOnDevice& model, std::span<const uint8_t> passes);

struct Way {
  std::vector<Visit> visits;       // empty: every sublayer once, without the host
  std::vector<uint8_t> unwritten;  // [rows]: 1 where the device writes no record; empty: it writes all
};
Way way_of(const ModelOnDevice& model, const ForwardRequest& request, int end_layer, const KeyLayout& layout);

}  // namespace switchyard::cuda

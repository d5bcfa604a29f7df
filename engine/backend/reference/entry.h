// The one symbol of libswitchyard_reference.so. Called by make_reference_backend() after dlopen.
#pragma once

#include <cstdint>

#include "engine/backend/backend.h"

namespace switchyard {

inline constexpr const char* kReferenceEntry = "switchyard_reference_open";

// Both sides must have been built from the same headers; a stale module is refused, not run.
inline constexpr uint64_t kReferenceLayout =
    sizeof(ModelPlan) + (uint64_t(sizeof(Sublayer)) << 8) + (uint64_t(sizeof(LayerPlan)) << 12) +
    (uint64_t(sizeof(AdaptedLinear)) << 20) + (uint64_t(sizeof(LayerRecipe)) << 28) + (uint64_t(sizeof(RoutingFrame)) << 40) + (uint64_t(sizeof(ForwardRequest)) << 52);

struct ReferenceOpen {
  uint64_t layout = kReferenceLayout;
  const ModelPlan* plan = nullptr;
  std::shared_ptr<const WeightStore> weights;
  BackendOptions options;
  Task* task = nullptr;
  Result<std::unique_ptr<Backend>> backend;  // out
};

// Returns the module's own layout; fills `backend` only where it equals the caller's. Never throws.
using ReferenceEntry = uint64_t (*)(ReferenceOpen*);

}  // namespace switchyard

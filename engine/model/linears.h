// The linear layers of a plan on which adapters can stand: the projections of attention, and the matrices of dense
// blocks, experts and shared experts. Routers are not among them. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model/plan.h"

namespace switchyard {

// A linear is known by its place: sublayers in the order of the plan, and in each the order below. Places are counted
// whether a tensor stands there or not, so that a backend knows them without asking for names.
enum AttentionPlace { kPlaceQ, kPlaceK, kPlaceV, kPlaceO, kPlaceGate, kAttentionPlaces };
enum LatentPlace { kPlaceQA, kPlaceLatentQ, kPlaceKvA, kPlaceLatentO, kLatentPlaces };
enum FfnPlace {
  kPlaceFfnGate,
  kPlaceFfnUp,
  kPlaceFfnDown,
  kFfnPlaces
};  // of each expert in turn, then of the shared one

// Places of a sublayer; 0: adapters do not stand there (recurrent mixers, attention with experts).
int places_of(const SublayerOp& op);
int places_of(const ModelPlan& plan);

struct Linear {
  int layer = 0;  // index into ModelPlan::layers
  int64_t rows = 0, cols = 0;
  std::string module;  // "model.layers.3.self_attn.q_proj": the tensor's name without its ending; empty: no tensor here
  std::string local;   // the same behind the layer's number: "self_attn.q_proj"
  std::string refused;  // why no adapter can stand here; empty: one can
};

// By place.
std::vector<Linear> linears_of(const ModelPlan& plan);

// "q_proj", "experts.3.down_proj".
std::string short_name(const Linear& linear);
// "layer 3 · q_proj", "encoder layer 0 · SelfAttention.q": for people.
std::string linear_name(const ModelPlan& plan, const Linear& linear);

// Whether `name` is the module, or its end at a dot ("q_proj", "self_attn.q_proj").
bool names_module(std::string_view name, std::string_view module);

}  // namespace switchyard

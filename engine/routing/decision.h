// One routing decision and the function that makes it: pure, no allocation, spans in and out, the
// same ids and weights bit for bit on every backend for the same logits. Ties go to the lower id.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/model/router_spec.h"
#include "engine/routing/recipe.h"

namespace switchyard {

enum class SlotKind : uint8_t { kRouted = 0, kForced = 1, kNull = 2, kDropped = 3 };  // dropped: see capacity.h

// Scalars of one decision. Natural logarithms. Under edits entropy, topk_mass and margin describe the
// decision as made (edited logits); lse is always of the raw logits, so that exp(logit - lse) is the
// native score. All definitions: specs/analyses.md A2.
struct DecisionStats {
  float entropy = 0;    // nats, of softmax over all experts
  float topk_mass = 0;  // softmax probability of the selected set
  float margin = 0;     // lowest selected minus highest unselected logit; 0 when nothing is left out
  float lse = 0;        // ln sum exp of the raw logits
};

// Buffers of the caller; each holds at least `slots_needed(spec, recipe)` entries.
struct DecisionSpans {
  std::span<ExpertId> ids;      // order of selection (routing rooms); frames re-sort by weight
  std::span<float> weights;     // as applied, routed scale included, expert_scale excluded
  std::span<SlotKind> kinds;
};

struct Decision {
  int k_used = 0;        // slots filled
  bool had_nan = false;  // NaN logits were replaced (gating.md section 0)
  int changed = 0;       // selected experts that the native router would not have selected
  DecisionStats stats;
};

// The first thing in the spec that route() cannot execute, in words; empty: it can. make_backend()
// refuses such a plan, so route() may rely on it.
std::string unroutable(const RouterSpec& spec);

// Slots a decision may need under this recipe: min(k in force, E).
int slots_needed(const RouterSpec& spec, const LayerRecipe* recipe);

// logits: [E], raw router output, the router's own bias in it. router_bias / select_bias: [E] or empty, the
// checkpoint's own tensors (row_scale multiplies logit - router_bias).
// recipe: nullptr for native. scratch: at least 4*E floats. Never fails on finite input; NaN is
// replaced as gating.md section 0 says and flagged.
Decision route(const RouterSpec& spec, const LayerRecipe* recipe, std::span<const float> logits,
               std::span<const float> router_bias, std::span<const float> select_bias,
               std::span<float> scratch, const DecisionSpans& out);

// Everything the gate inspector draws for one (token, layer), recomputed from raw logits by the same
// code as route(). All vectors have E entries.
struct GateExplanation {
  std::vector<float> logits;         // raw
  std::vector<float> edited_logits;  // after row scale, bias, temperature, mute (-inf)
  std::vector<float> scores;         // from the edited logits
  std::vector<float> select_scores;  // scores + selection bias
  std::vector<float> native_scores;
  std::vector<float> weights;        // 0 where not selected
  std::vector<float> native_weights;
  std::vector<uint8_t> selected, native_selected;
  Decision decision, native_decision;
};
GateExplanation explain(const RouterSpec& spec, const LayerRecipe* recipe, std::span<const float> logits,
                        std::span<const float> router_bias, std::span<const float> select_bias);

}  // namespace switchyard

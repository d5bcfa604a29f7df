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

// One token at one router. What only schemes read may be left out where none is in force.
struct RouterInput {
  std::span<const float> logits;       // [E] raw router output, the router's own bias in it
  std::span<const float> router_bias;  // [E] or empty: the checkpoint's (row_scale multiplies logit - router_bias)
  std::span<const float> select_bias;  // [E] or empty: the checkpoint's
  std::span<const float> native;       // [E] of the checkpoint's own rows, where the recipe replaces some; else empty
  std::span<const float> hidden;       // [d] what the router read; where reads_input()
  std::span<const float> row_norms;    // [E] L2 norms of the router's rows; of cosines to these rows
  std::span<const float> mixed;        // [E] what neighbours give, see NeighbourMix; where mixes_tokens() and lambda > 0
  TokenId token = 0;
  uint64_t index = 0;        // of the token in its sequence
  uint64_t first_index = 0;  // of the first token that runs with it
  int together = 1;          // tokens that run together, this one included
  uint32_t sequence = 0;
  int row = 0;  // routing row
  // False: ids, weights and kinds alone are asked for; the native router is not run beside the recipe, and
  // Decision::stats and changed stay 0. Not where waits_for_block().
  bool describe = true;
};

// Buffers of the caller; each holds at least `slots_needed(spec, recipe)` entries.
struct DecisionSpans {
  std::span<ExpertId> ids;      // order of selection (routing rooms), null slots last; frames re-sort by weight
  std::span<float> weights;     // as applied, routed scale included, expert_scale excluded
  std::span<SlotKind> kinds;
  std::span<float> edited = {};  // [2 E] edited logits and native marks for settle_block(); where waits_for_block()
  std::span<float> state = {};   // [p] in: of the recurrent router before this one; out: of this one; where has_state()
};

struct Decision {
  int k_used = 0;        // slots of experts
  int nulls = 0;         // null slots after them; null expert j has id E + j
  bool had_nan = false;  // NaN logits were replaced (gating.md section 0)
  bool fell_back = false;  // the scheme's code failed, the model's own router decided
  int changed = 0;       // selected experts that the native router would not have selected
  DecisionStats stats;
};

// The first thing in the spec that route() cannot execute, in words; empty: it can. make_backend()
// refuses such a plan, so route() may rely on it.
std::string unroutable(const RouterSpec& spec);

// Slots a decision may need under this recipe: min(k in force, E).
int slots_needed(const RouterSpec& spec, const LayerRecipe* recipe);

// Decisions that the router makes for one token: rows of a frame.
inline int decisions_of(const LayerRecipe* recipe) {
  return recipe ? recipe->scheme.stages.passes + (recipe->scheme.stages.slices > 0) : 1;
}

// Floats that route() works in.
size_t scratch_needed(const RouterSpec& spec, const LayerRecipe* recipe);

// Whether the decision of this token waits for settle_block(): a batch-coupled scheme, and tokens that run together.
bool waits_for_block(const LayerRecipe* recipe, const RouterInput& in);

// recipe: nullptr for native. scratch: scratch_needed(). Never fails on finite input; NaN is replaced as gating.md
// section 0 says and flagged.
Decision route(const RouterSpec& spec, const LayerRecipe* recipe, const RouterInput& in, std::span<float> scratch,
               const DecisionSpans& out);

// Everything the gate inspector draws for one (token, layer), recomputed from raw logits by the same
// code as route(). All vectors have E entries. Native is without the edits of logits: what a replaced router row
// would have been is not in them.
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
  // What one token's logits cannot tell, for people: the scheme reads the router's input, or all tokens that ran
  // together. The edited side is then as far as it goes, or that of a token that runs alone. Empty: all is exact.
  std::string unknown;
};
GateExplanation explain(const RouterSpec& spec, const LayerRecipe* recipe, const RouterInput& in);

}  // namespace switchyard

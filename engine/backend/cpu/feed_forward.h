// The feed-forward sublayers: router, route(), frames, then the chosen experts and the shared block; a dense
// layer is a shared block alone.
// Run by the executor on the engine thread; one serves all layers.
//
// Every token's outputs are added in one order: bias, identities and what else an edit puts there that is no
// feed-forward block, experts by rising id, local experts by rising id, shared block; in prefill and in decode alike, so
// both give the same bits.
#pragma once

#include <map>
#include <vector>

#include "engine/backend/cpu/adapters.h"
#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/edited_weights.h"
#include "engine/backend/cpu/step.h"
#include "engine/routing/block.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/router_states.h"

namespace switchyard::cpu {

inline bool executed(SlotKind kind) { return kind == SlotKind::kRouted || kind == SlotKind::kForced; }

class FeedForwardRun {
 public:
  // Before the first layer of a chunk.
  void begin() { states_.begin(); }
  // in: [count] normed inputs. pass: of the router's decisions for these tokens, from 0.
  void run(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum, int pass = 0);

 private:
  // Slots [first, first + count) are the tokens of one block, whose rows begin at `row` of all groups'.
  struct Group {
    const Expert* expert;
    const FfnForm* form;
    int first, count;
    int64_t row;
    int place;  // of its first linear; adapters stay there whichever of the model's experts runs. -1: of another kind
    const std::vector<int>* masked = nullptr;  // hidden units that are off, ascending
    ExpertId id = kNoExpert;                   // of a routed expert
    AdapterPart *gate_part = nullptr, *up_part = nullptr, *down_part = nullptr;
    const float* down_factors = nullptr;  // with a down_part: of the base product
    float* packed = nullptr;              // activations, see Kernels::pack
  };

  // routing.cpp
  void route_tokens(const Step& step, const FeedForward& spec, const float* const* in);
  void route_token(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, const float* in, int token,
                   int worker);
  void mix_neighbours(const Step& step, const FeedForward& spec, const LayerRecipe& recipe, const float* const* in);
  RouterInput input_of(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, int token);
  void settle(const Step& step, const FeedForward& spec, const LayerRecipe& recipe);
  void record(const Step& step, const FeedForward& spec, int token);
  std::span<const float> row_norms(const Step& step, const FeedForward& spec);
  void gather(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum);
  // others.cpp
  bool runs_here(const FeedForward& spec, const LayerRecipe* recipe, size_t id) const;
  size_t group_of(const FeedForward& spec, const LayerRecipe* recipe, size_t id, const float* in) const;
  void add_at_once(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, size_t id, int token, float weight,
                   float input_weight, const float* in, const Sum& sum);
  void run_gru(const Step& step, const OtherNetwork& gru, float weight, float input_weight, const float* in, float* out);

  void gather_shared(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum);
  void size_slots(size_t slots);
  void replace_rows(const Step& step, const FeedForward& spec, const LayerRecipe& recipe, const float* const* in);
  void replace_gate(const Step& step, const FeedForward& spec, std::span<const float> gate, const float* const* in);
  void keep_native(const Step& step, const FeedForward& spec);
  bool own_gate(const LayerRecipe* recipe) const;  // of the pass in hand: the router's weight and bias

  // slices.cpp
  void cut_experts(const Step& step, const FeedForward& spec, const LayerRecipe& recipe, const float* const* in);
  void slice_logits(const Step& step, const SchemeData* data, int slices, const float* const* in);

  // feed_forward.cpp
  void adapt_inner(const Step& step);
  void adapt_down(const Step& step);
  void gate_up(const Step& step);
  void gate_up_rows(const Step& step, const Group& group, int64_t begin, int64_t end, int worker);
  void activate(const Step& step, const Group& group, int slot, int64_t begin, int64_t end);
  void pack_active(const Step& step);
  void down(const Step& step, int64_t hidden);
  int64_t down_bytes() const;
  void show_units(const Step& step, const FeedForward& spec) const;

  // taps.cpp
  void keep_residual(const Step& step, const FeedForward& spec, const Sum& sum);
  void measure(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum);
  void measure_slot(const Step& step, int row, int token, ExpertId id, const float* y, float weight);

  int pass_ = 0;
  // Routing of the chunk: [tokens, slots_per_token_].
  Rows router_logits_;
  std::vector<float*> router_out_;
  Rows native_logits_, replaced_logits_;  // where the recipe replaces router rows or the gate
  std::vector<float*> replaced_out_;
  EditedWeights edited_weights_;
  std::vector<float> shared_gates_;
  std::vector<float*> shared_gate_out_;
  std::vector<AlignedFloats> scratch_;  // per worker
  int slots_per_token_ = 0;
  std::vector<Decision> decisions_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_;
  std::vector<SlotKind> kinds_;
  // Only for the schemes that ask for them.
  std::vector<float> edited_;  // [tokens, 2 E], see DecisionSpans
  std::map<int, std::vector<float>> row_norms_;  // by routing row, made when first asked for
  RouterStates states_;
  std::vector<NeighbourMix> neighbours_;  // per worker
  std::vector<float> mixed_;              // [tokens, E], see RouterInput
  BlockScratch block_;

  // What is executed: slots by block.
  std::vector<Group> groups_;
  std::vector<int> next_;                        // per expert and per local expert, for the counting sort
  std::vector<float> gru_, gru_in_;              // [3, width]; the input
  std::vector<float> slot_weight_, slot_input_;  // multiplies the output; the input
  std::vector<int> slot_token_;                  // of the chunk
  std::vector<float> slot_share_;                // of routed slots: routing weight where it multiplies the output, else 1
  std::vector<float> slice_logits_;              // [tokens, slices]
  std::vector<float*> slice_out_;
  std::vector<uint8_t> slices_on_;
  std::vector<const float*> slot_in_, slot_act_;
  std::vector<float*> slot_gate_, slot_up_, slot_sum_;
  Rows gate_, up_;
  AlignedFloats packed_active_;

  // Of taps.
  Rows residual_, routed_, tapped_;  // [tokens, hidden]: before the block, what the routed experts add; [slots, hidden]
  std::vector<float*> tapped_rows_;
  int64_t width_ = 0;
  Rows weighed_;  // with adapters: inputs times their weight, for routers that weigh the input
};

}  // namespace switchyard::cpu

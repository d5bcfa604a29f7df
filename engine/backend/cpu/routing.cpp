// From normed inputs to slots sorted by expert. See feed_forward.h.
#include <array>
#include <cmath>

#include "engine/backend/cpu/feed_forward.h"

namespace switchyard::cpu {
namespace {

bool executed(SlotKind kind) {
  return kind == SlotKind::kRouted || kind == SlotKind::kForced;
}

}  // namespace

void FeedForwardRun::route_tokens(const Step& step, const FeedForward& spec, const float* const* in) {
  shape_rows(step.count, spec.router.experts, router_logits_, router_out_);
  const bool gated = spec.shared_gate.rows > 0;
  shared_gates_.resize(step.count);
  shared_gate_out_.resize(step.count);
  for (int token = 0; token < step.count; ++token) shared_gate_out_[token] = &shared_gates_[token];
  const std::array products{Product{&spec.router_weight, {step.count, in, router_out_.data(), nullptr}},
                            Product{&spec.shared_gate, {step.count, in, shared_gate_out_.data(), nullptr}}};
  step.multiply(std::span(products).first(gated ? 2 : 1));

  const LayerRecipe* recipe = step.chunk->recipe->layer(spec.row);
  slots_per_token_ = slots_needed(spec.router, recipe);
  const size_t slots = size_t(step.count) * slots_per_token_;
  decisions_.resize(step.count);
  ids_.resize(slots);
  weights_.resize(slots);
  kinds_.resize(slots);
  scratch_.resize(step.pool.threads());
  for (AlignedFloats& scratch : scratch_) scratch.reserve(size_t(spec.router.experts) * 4);
  // A decision takes about as long as reading some bytes per expert.
  step.for_tokens(int64_t(spec.router.experts) * 512,
                  [&](int token, int worker) { route_token(step, spec, recipe, token, worker); });
}

void FeedForwardRun::route_token(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, int token,
                                 int worker) {
  const size_t experts = spec.router.experts, first = size_t(token) * slots_per_token_;
  const std::span<float> logits(router_logits_[token], experts);
  for (size_t e = 0; e < spec.router_bias.size(); ++e) logits[e] += spec.router_bias[e];
  const DecisionSpans out{std::span(ids_).subspan(first, slots_per_token_),
                          std::span(weights_).subspan(first, slots_per_token_),
                          std::span(kinds_).subspan(first, slots_per_token_)};
  decisions_[token] = route(spec.router, recipe, logits, spec.router_bias, spec.select_bias,
                            {scratch_[worker].data(), 4 * experts}, out);
  if (!step.chunk->frames.empty())
    step.chunk->frames[token].record(spec.row, decisions_[token], out.ids, out.weights, out.kinds, logits);
}

// Counting sort of the executed slots by expert, within one expert by token. Identities (the experts that
// have no weights) are added at once.
void FeedForwardRun::gather(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum) {
  const LayerRecipe* recipe = step.chunk->recipe->layer(spec.row);
  const std::vector<float>* expert_scale = recipe && !recipe->expert_scale.empty() ? &recipe->expert_scale : nullptr;
  const bool weigh_input = spec.router.apply == ApplyTo::kInput;
  const size_t experts = spec.experts.size();

  next_.assign(experts + 1, 0);
  const auto each = [&](auto&& visit) {
    for (int token = 0; token < step.count; ++token)
      for (int slot = 0; slot < decisions_[token].k_used; ++slot)
        if (const size_t at = size_t(token) * slots_per_token_ + slot; executed(kinds_[at])) visit(token, at);
  };
  each([&](int, size_t at) {
    if (size_t(ids_[at]) < experts) ++next_[ids_[at] + 1];
  });
  groups_.clear();
  int64_t row = 0;
  for (size_t e = 0; e < experts; ++e) {
    if (next_[e + 1] > 0) {
      groups_.push_back({&spec.experts[e], &spec.form, next_[e], next_[e + 1], row});
      row += spec.form.width;
    }
    next_[e + 1] += next_[e];
  }
  size_slots(size_t(next_.back()));
  each([&](int token, size_t at) {
    const float scale = (expert_scale ? (*expert_scale)[ids_[at]] : 1.0f) * sum.factor;
    if (size_t(ids_[at]) >= experts) {
      const float weight = weights_[at] * scale;
      for (int64_t i = 0; i < spec.router_weight.cols; ++i) sum.rows[token][i] += weight * in[token][i];
      return;
    }
    const int slot = next_[ids_[at]]++;
    slot_weight_[slot] = weigh_input ? scale : weights_[at] * scale;
    slot_input_[slot] = weigh_input ? weights_[at] : 1.0f;
    slot_in_[slot] = in[token];
    slot_sum_[slot] = sum.rows[token];
  });
}

// One more group: every token takes the shared block.
void FeedForwardRun::gather_shared(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum) {
  const size_t first = slot_in_.size();
  const int64_t row = groups_.empty() ? 0 : groups_.back().row + groups_.back().form->width;
  groups_.push_back({&*spec.shared, &spec.shared_form, int(first), step.count, row});
  size_slots(first + step.count);
  for (int token = 0; token < step.count; ++token) {
    const float gate = spec.shared_gate.rows > 0 ? 1 / (1 + std::exp(-shared_gates_[token])) : 1.0f;
    slot_weight_[first + token] = gate * sum.factor;
    slot_input_[first + token] = 1.0f;
    slot_in_[first + token] = in[token];
    slot_sum_[first + token] = sum.rows[token];
  }
}

void FeedForwardRun::size_slots(size_t slots) {
  slot_weight_.resize(slots);
  slot_input_.resize(slots);
  slot_in_.resize(slots);
  slot_sum_.resize(slots);
}

}  // namespace switchyard::cpu

// See host_gate.h.
#include "engine/backend/cuda/host_gate.h"

#include <algorithm>

namespace switchyard::cuda {

void HostGate::decide(const RouterSpec& spec, const LayerRecipe* recipe, const GateTokens& tokens,
                      const GateNumbers& numbers) {
  const auto count = tokens.ids.size(), experts = size_t(spec.experts);
  slots_ = slots_needed(spec, recipe);
  decisions_.assign(count, {});
  ids_.assign(count * size_t(slots_), kNoExpert);
  weights_.assign(ids_.size(), 0.0f), kinds_.assign(ids_.size(), SlotKind::kRouted);
  const Scheme none, &scheme = recipe ? recipe->scheme : none;
  const bool together = batch_coupled(scheme);
  edited_.resize(together ? count * 2 * experts : 0);
  mixed_.clear();
  if (mixes_tokens(scheme)) mix_neighbours(spec, *recipe, tokens, numbers);
  if (has_state(scheme)) states_.prepare(scheme, count);
  scratch_.resize(scratch_needed(spec, recipe));
  for (size_t token = 0; token < count; ++token) {
    RouterInput in = input(spec, tokens, numbers, token);
    if (reads_input(scheme))
      in.hidden = numbers.inputs.subspan(token * (numbers.inputs.size() / count)).first(numbers.inputs.size() / count);
    if (!mixed_.empty()) in.mixed = std::span<const float>(mixed_).subspan(token * experts, experts);
    const auto own = [&](auto& all, size_t width) { return std::span(all).subspan(token * width, width); };
    DecisionSpans out{own(ids_, size_t(slots_)), own(weights_, size_t(slots_)), own(kinds_, size_t(slots_))};
    if (together) out.edited = own(edited_, 2 * experts);
    if (has_state(scheme)) out.state = states_.of(token);
    decisions_[token] = route(spec, recipe, in, scratch_, out);
  }
  if (together) settle(spec, *recipe);
}

RouterInput HostGate::input(const RouterSpec& spec, const GateTokens& tokens, const GateNumbers& numbers,
                            size_t token) const {
  const auto experts = size_t(spec.experts), block = token / kBlockTokens * kBlockTokens;
  RouterInput in{.logits = numbers.logits.subspan(token * experts, experts),
                 .router_bias = numbers.router_bias,
                 .select_bias = numbers.select_bias,
                 .row_norms = numbers.row_norms,
                 .token = tokens.ids[token],
                 .index = uint64_t(tokens.position) + token,
                 .first_index = uint64_t(tokens.position) + block,
                 .together = int(std::min<size_t>(kBlockTokens, tokens.ids.size() - block)),
                 .sequence = tokens.sequence,
                 .row = tokens.row};
  if (!numbers.native.empty()) in.native = numbers.native.subspan(token * experts, experts);
  return in;
}

// The tokens into the memory, then what each takes from it.
void HostGate::mix_neighbours(const RouterSpec& spec, const LayerRecipe& recipe, const GateTokens& tokens,
                              const GateNumbers& numbers) {
  const Stages& stages = recipe.scheme.stages;
  const auto count = tokens.ids.size(), experts = size_t(spec.experts);
  const bool likeness = stages.mixing == Mixing::kLikeness;
  const size_t width = likeness ? numbers.inputs.size() / count : 0, window = numbers.shares.size() / count;
  TokenMemory& memory = *tokens.memory;
  memory.prepare(tokens.row, uint64_t(tokens.position), count, experts, width);
  for (size_t token = 0; token < count; ++token) {
    const uint64_t index = uint64_t(tokens.position) + token;
    token_probabilities(recipe, input(spec, tokens, numbers, token), memory.write_probabilities(tokens.row, index));
    if (likeness)
      std::ranges::copy(numbers.inputs.subspan(token * width, width), memory.write_input(tokens.row, index).begin());
  }
  mixed_.resize(stages.lambda > 0 ? count * experts : 0);
  for (size_t token = 0; !mixed_.empty() && token < count; ++token) {
    const uint64_t index = uint64_t(tokens.position) + token;
    const std::span<float> mixed = std::span(mixed_).subspan(token * experts, experts);
    if (likeness)
      neighbours_.by_likeness(memory, tokens.row, index, recipe.scheme, mixed);
    else
      neighbours_.by_attention(memory, tokens.row, index, recipe.scheme, numbers.shares.subspan(token * window, window),
                               mixed);
  }
}

void HostGate::settle(const RouterSpec& spec, const LayerRecipe& recipe) {
  const auto slots = size_t(slots_), width = 2 * size_t(spec.experts);
  for (size_t first = 0; first < decisions_.size(); first += kBlockTokens) {
    const size_t count = std::min<size_t>(kBlockTokens, decisions_.size() - first);
    settle_block(
        spec, &recipe,
        {slots_, std::span(decisions_).subspan(first, count), std::span(ids_).subspan(first * slots, count * slots),
         std::span(weights_).subspan(first * slots, count * slots),
         std::span(kinds_).subspan(first * slots, count * slots),
         std::span<const float>(edited_).subspan(first * width, count * width)},
        block_);
  }
}

std::vector<HostSlot> HostGate::chosen(const RouterSpec& spec, const LayerRecipe* recipe) const {
  const bool of_input = spec.apply == ApplyTo::kInput;
  std::vector<HostSlot> out;
  for (size_t token = 0; token < decisions_.size(); ++token) {
    const auto first = ptrdiff_t(out.size());
    for (size_t slot = 0; slot < size_t(decisions_[token].k_used); ++slot) {
      const SlotKind kind = kinds(token)[slot];
      if (kind != SlotKind::kRouted && kind != SlotKind::kForced) continue;
      const ExpertId id = ids(token)[slot];
      const float weight = weights(token)[slot],
                  scale = recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[id] : 1.0f;
      out.push_back(
          {int(token), id, of_input ? scale : weight * scale, of_input ? weight : 1.0f, of_input ? 1.0f : weight});
    }
    std::ranges::sort(out.begin() + first, out.end(), {}, &HostSlot::expert);
  }
  return out;
}

}  // namespace switchyard::cuda

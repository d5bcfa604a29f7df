// Union-of-Experts: slices of the hidden units of the gathered slots, switched between activation and down projection.
// Nothing is saved by a slice that is off; what is computed is exact. See feed_forward.h.
#include <algorithm>
#include <cmath>

#include "engine/backend/cpu/feed_forward.h"
#include "engine/routing/slices.h"

namespace switchyard::cpu {

void FeedForwardRun::cut_experts(const Step& step, const FeedForward& spec, const LayerRecipe& recipe, const float* const* in) {
  const Stages& s = recipe.scheme.stages;
  const size_t slices = size_t(s.slices);
  slice_logits(step, recipe.scheme.data.get(), s.slices, in);
  slices_on_.assign(size_t(step.count) * slices, 0);
  SequenceChoices& choices = step.chunk->cache->choices();
  for (size_t first = 0; first < size_t(step.count); first += kBlockTokens) {
    const size_t count = std::min<size_t>(kBlockTokens, step.count - first);
    const std::span<uint8_t> on = std::span(slices_on_).subspan(first * slices, count * slices);
    const bool once = s.slice_choice == SliceChoice::kSequence;
    if (const auto* chosen = once ? choices.find(step.row_in_pass(spec.row), recipe.scheme.choice) : nullptr) {
      for (size_t token = 0; token < count; ++token) std::copy(chosen->begin(), chosen->end(), on.begin() + ptrdiff_t(token * slices));
      continue;
    }
    choose_slices(s, std::span<const float>(slice_logits_).subspan(first * slices, count * slices), on);
    if (once) choices.keep(step.row_in_pass(spec.row), recipe.scheme.choice, step.position + int(first), {on.begin(), on.begin() + ptrdiff_t(slices)});
  }

  for (const Group& group : groups_) {
    if (group.id == kNoExpert) continue;  // the shared block is whole
    for (int slot = group.first; slot < group.first + group.count; ++slot)
      for (int slice = 0; slice < s.slices; ++slice) {
        if (slices_on_[size_t(slot_token_[slot]) * slices + size_t(slice)]) continue;
        const int64_t width = group.form->width;
        std::fill(gate_[slot] + slice_begin(slice, s.slices, width), gate_[slot] + slice_begin(slice + 1, s.slices, width), 0.0f);
      }
  }
  if (step.chunk->frames.empty()) return;
  std::vector<ExpertId> ids(slices);
  std::vector<float> weights(slices);
  std::vector<SlotKind> kinds(slices);
  for (int token = 0; token < step.count; ++token) {
    const auto logits = std::span<const float>(slice_logits_).subspan(size_t(token) * slices, slices);
    const auto on = std::span<const uint8_t>(slices_on_).subspan(size_t(token) * slices, slices);
    RoutingFrame& frame = step.chunk->frames[token];
    frame.record(decision_row(frame.header().moe_layers, spec.row, &recipe, step.pass, 1), slice_decision(logits, on, {ids, weights, kinds}), ids, weights, kinds, logits);
  }
}

// Of a file's gate, or the oracle's: ln of the summed norms of a slice's activations, so that their softmax is the share.
void FeedForwardRun::slice_logits(const Step& step, const SchemeData* data, int slices, const float* const* in) {
  slice_logits_.assign(size_t(step.count) * slices, 0.0f);
  slice_out_.resize(step.count);
  for (int token = 0; token < step.count; ++token) slice_out_[token] = slice_logits_.data() + size_t(token) * slices;
  if (data && !data->slice_gate.empty()) {
    const Matrix gate{reinterpret_cast<const unsigned char*>(data->slice_gate.data()), Stored::kF32, slices, data->slice_width};
    const Product product{&gate, {step.count, in, slice_out_.data(), nullptr}};
    step.multiply({&product, 1});
    for (int token = 0; token < step.count; ++token)
      for (size_t slice = 0; slice < data->slice_bias.size(); ++slice) slice_out_[token][slice] += data->slice_bias[slice];
    return;
  }
  for (const Group& group : groups_) {
    if (group.id == kNoExpert) continue;
    for (int slot = group.first; slot < group.first + group.count; ++slot)
      for (int slice = 0; slice < slices; ++slice) {
        double squares = 0;
        const int64_t width = group.form->width;
        for (int64_t i = slice_begin(slice, slices, width); i < slice_begin(slice + 1, slices, width); ++i)
          squares += double(gate_[slot][i]) * gate_[slot][i];
        slice_out_[slot_token_[slot]][slice] += std::abs(slot_share_[slot]) * static_cast<float>(std::sqrt(squares));
      }
  }
  for (float& logit : slice_logits_) logit = std::log(std::max(logit, 1e-30f));
}

}  // namespace switchyard::cpu

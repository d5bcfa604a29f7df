// Hidden units and outputs of experts on the host: slices, taps, measurements. See host_walk.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/backend/cuda/host_walk.h"
#include "engine/routing/slices.h"

namespace switchyard::cuda {

Result<void> HostWalk::work_on_units(const Place& place) {
  order_.resize(slots_.size());
  std::iota(order_.begin(), order_.end(), size_t(0));
  std::ranges::stable_sort(order_, {}, [&](size_t slot) { return slots_[slot].expert; });
  const auto width = size_t(place.op.form.width), step = place.shape.tokens == 1 ? size_t(place.op.width()) : width;
  std::vector<float> units;
  SY_CHECK(bring(units, executor_.units(), slots_.size() * step, "hidden units"));
  if (place.recipe && cuts_experts(place.recipe->scheme)) SY_CHECK(cut_experts(place, units, step));
  if (!task_.units) return {};
  for (size_t i = 0; i < order_.size(); ++i) {
    const HostSlot& slot = slots_[order_[i]];
    task_.units->take(place.op.row, slot.expert, int(task_.first) + slot.token, {units.data() + i * step, width});
  }
  return {};
}

// Slices that are off: their units become 0, here and on the device.
Result<void> HostWalk::cut_experts(const Place& place, std::span<float> units, size_t step) {
  const Scheme& scheme = place.recipe->scheme;
  const Stages& s = scheme.stages;
  const auto slices = size_t(s.slices), tokens = place.tokens();
  slice_logits(place, units, step);
  std::vector<uint8_t> all(tokens * slices);
  SequenceChoices& choices = task_.cache->choices();
  const int router = place.pass * int(model_.rows.size()) + place.op.row;
  for (size_t first = 0; first < tokens; first += kBlockTokens) {
    const size_t count = std::min<size_t>(kBlockTokens, tokens - first);
    const std::span<uint8_t> on = std::span(all).subspan(first * slices, count * slices);
    const bool once = s.slice_choice == SliceChoice::kSequence;
    if (const auto* chosen = once ? choices.find(router, scheme.choice) : nullptr) {
      for (size_t token = 0; token < count; ++token) std::ranges::copy(*chosen, on.begin() + ptrdiff_t(token * slices));
      continue;
    }
    choose_slices(s, std::span<const float>(slice_logits_).subspan(first * slices, count * slices), on);
    if (once)
      choices.keep(router, scheme.choice, task_.cache->length() + int(first),
                   {on.begin(), on.begin() + ptrdiff_t(slices)});
  }
  const int64_t width = place.op.form.width;
  for (size_t i = 0; i < order_.size(); ++i)
    for (int slice = 0; slice < s.slices; ++slice) {
      if (all[size_t(slots_[order_[i]].token) * slices + size_t(slice)]) continue;
      const auto own = units.subspan(i * step);
      std::fill(own.begin() + slice_begin(slice, s.slices, width),
                own.begin() + slice_begin(slice + 1, s.slices, width), 0.0f);
    }
  SY_CHECK(copy(stream_, executor_.units(), units.data(), units.size_bytes(), "hidden units"));
  SY_CHECK(wait(stream_, "hidden units"));
  if (task_.records) records_.add(frame_row(place, 1), slice_logits_, all, s.slices);
  return {};
}

// Of a file's gate, or the oracle's: ln of the summed norms of a slice's units, so that their softmax is the share.
void HostWalk::slice_logits(const Place& place, std::span<const float> units, size_t step) {
  const SchemeData* data = place.recipe->scheme.data.get();
  const int slices = place.recipe->scheme.stages.slices;
  const auto wide = size_t(slices), hidden = size_t(model_.hidden);
  slice_logits_.assign(place.tokens() * wide, 0.0f);
  if (data && !data->slice_gate.empty()) {
    const std::span<const float> inputs = inputs_.as(place.tokens() * hidden);
    for (size_t i = 0; i < slice_logits_.size(); ++i) {
      double sum = data->slice_bias.empty() ? 0.0 : double(data->slice_bias[i % wide]);
      for (size_t c = 0; c < hidden; ++c)
        sum += double(data->slice_gate[i % wide * hidden + c]) * inputs[i / wide * hidden + c];
      slice_logits_[i] = static_cast<float>(sum);
    }
    return;
  }
  const int64_t width = place.op.form.width;
  for (size_t i = 0; i < order_.size(); ++i) {
    const HostSlot& slot = slots_[order_[i]];
    for (int slice = 0; slice < slices; ++slice) {
      double squares = 0;
      for (int64_t u = slice_begin(slice, slices, width); u < slice_begin(slice + 1, slices, width); ++u)
        squares += double(units[i * step + size_t(u)]) * units[i * step + size_t(u)];
      slice_logits_[size_t(slot.token) * wide + size_t(slice)] +=
          std::abs(slot.share) * static_cast<float>(std::sqrt(squares));
    }
  }
  for (float& logit : slice_logits_) logit = std::log(std::max(logit, 1e-30f));
}

// What every expert gave, made a second time where it is not there, so that the run is bit for bit what it is without.
Result<void> HostWalk::measure(const Place& place, float factor) {
  const auto hidden = size_t(model_.hidden), tokens = place.tokens();
  const int row = frame_row(place, place.decision);
  order_.resize(slots_.size());
  std::iota(order_.begin(), order_.end(), size_t(0));
  std::ranges::stable_sort(order_, {}, [&](size_t slot) { return slots_[slot].expert; });
  executor_.make_outputs(place.shape, place.op);
  std::vector<float> given, routed(tokens * hidden, 0.0f);
  SY_CHECK(bring(given, executor_.outputs(), slots_.size() * hidden, "outputs of experts"));
  for (size_t i = 0; i < order_.size(); ++i) {
    const HostSlot& slot = slots_[order_[i]];
    double squares = 0;
    for (size_t d = 0; d < hidden; ++d) {
      const float y = given[i * hidden + d];
      squares += double(y) * y;
      routed[size_t(slot.token) * hidden + d] += slot.weight * factor * y;
    }
    records_.add_norm(size_t(slot.token), row, slot.expert, static_cast<float>(std::sqrt(squares)));
  }
  if (place.recipe && runs_in_passes(place.recipe->scheme)) return {};
  for (size_t token = 0; token < tokens; ++token) {
    double before = 0, after = 0, both = 0;
    for (size_t d = token * hidden; d < (token + 1) * hidden; ++d) {
      const double x = residual_[d], y = x + routed[d];
      before += x * x, after += y * y, both += x * y;
    }
    if (before > 0 && after > 0) records_.add_cosine(token, row, static_cast<float>(both / std::sqrt(before * after)));
  }
  return {};
}

}  // namespace switchyard::cuda

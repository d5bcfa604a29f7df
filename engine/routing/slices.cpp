// See slices.h.
#include "engine/routing/slices.h"

#include <algorithm>
#include <numeric>

#include "engine/routing/stages.h"

namespace switchyard {
namespace {

using namespace stages;

// The n largest of `scores`; ties: lower index.
void mark_best(std::span<const float> scores, int n, std::span<uint8_t> marks) {
  std::fill(marks.begin(), marks.end(), uint8_t(0));
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  for (int i = 0; i < std::min<int>(n, int(order.size())); ++i) marks[order[i]] = 1;
}

}  // namespace

void normalise_slices(std::span<const float> g, std::span<const uint8_t> mask, int slices, double cap, std::span<float> out) {
  const size_t width = size_t(slices), tokens = g.size() / width;
  const auto room = static_cast<double>(static_cast<int64_t>(cap * double(tokens)));
  for (size_t slice = 0; slice < width; ++slice) {
    double sum = 0;
    for (size_t t = 0; t < tokens; ++t) sum += mask[t * width + slice] ? double(g[t * width + slice]) : 0;
    for (size_t t = 0; t < tokens; ++t) {
      const size_t at = t * width + slice;
      out[at] = mask[at] ? static_cast<float>(double(g[at]) / (sum + 1e-6) * room) : 0.0f;
    }
  }
}

void choose_slices(const Stages& s, std::span<const float> logits, std::span<uint8_t> on) {
  const size_t width = size_t(s.slices), tokens = logits.size() / width;
  const auto of = [&](auto values, size_t t) { return values.subspan(t * width, width); };
  if (s.slice_choice == SliceChoice::kSequence) {
    std::vector<float> mean(width);
    for (size_t slice = 0; slice < width; ++slice) {
      double sum = 0;
      for (size_t t = 0; t < tokens; ++t) sum += logits[t * width + slice];
      mean[slice] = static_cast<float>(sum / double(tokens));
    }
    for (size_t t = 0; t < tokens; ++t) mark_best(mean, s.slices_on, of(on, t));
    return;
  }
  for (size_t t = 0; t < tokens; ++t) mark_best(of(logits, t), s.slices_on, of(on, t));
  if (s.slice_choice == SliceChoice::kToken) return;

  std::vector<float> g(logits.size()), normalised(logits.size()), column(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    const SoftmaxSums sums = softmax_sums(of(logits, t), g.data() + t * width);
    for (size_t slice = 0; slice < width; ++slice) g[t * width + slice] /= static_cast<float>(sums.sum);
  }
  normalise_slices(g, on, s.slices, s.slice_capacity, normalised);
  std::vector<uint8_t> taken(tokens);
  for (size_t slice = 0; slice < width; ++slice) {
    for (size_t t = 0; t < tokens; ++t) column[t] = normalised[t * width + slice];
    mark_best(column, std::max(1, int(tokens / 2)), taken);
    for (size_t t = 0; t < tokens; ++t) on[t * width + slice] = taken[t];
  }
}

Decision slice_decision(std::span<const float> logits, std::span<const uint8_t> on, const DecisionSpans& out) {
  Decision decision;
  for (size_t slice = 0; slice < logits.size(); ++slice) {
    if (!on[slice]) continue;
    out.ids[decision.k_used] = static_cast<ExpertId>(slice);
    out.weights[decision.k_used] = 1;
    out.kinds[decision.k_used++] = SlotKind::kRouted;
  }
  decision.stats = stats_of(softmax_sums(logits, nullptr), logits, out.ids.first(decision.k_used));
  return decision;
}

}  // namespace switchyard

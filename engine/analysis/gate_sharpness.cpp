// See gate_sharpness.h.
#include "engine/analysis/gate_sharpness.h"

#include <algorithm>
#include <cmath>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

struct Scores {
  double entropy = 0, mass = 0, margin = 0;
};

// From the logits of one token; `sorted` is scratch.
Scores scores_of(std::span<const float> logits, size_t k, std::vector<float>& sorted) {
  sorted.assign(logits.begin(), logits.end());
  const size_t keep = std::min(k + 1, sorted.size());
  std::partial_sort(sorted.begin(), sorted.begin() + keep, sorted.end(), std::greater<>());
  const double top = sorted[0];
  double total = 0, weighted = 0, chosen = 0;
  for (const float z : sorted) {
    total += std::exp(z - top);
    weighted += std::exp(z - top) * (z - top);
  }
  for (size_t r = 0; r < std::min(k, sorted.size()); ++r) chosen += std::exp(sorted[r] - top);
  return {std::log(total) - weighted / total, chosen / total, k < sorted.size() ? double(sorted[k - 1]) - sorted[k] : 0};
}

// Second weight over the first; without weights, of the softmax over the logits.
std::optional<double> ratio_of(const RoutingSlab& slab, int row, int t) {
  const auto chosen = slab.token(row, t);
  if (slab.k < 2 || chosen[0] == kNoExpert || chosen[1] == kNoExpert) return std::nullopt;
  if (!slab.weights.empty()) {
    const auto weights = slab.of_row(slab.weights, row).subspan(size_t(t) * slab.k, slab.k);
    if (!(weights[0] > 0)) return std::nullopt;
    return double(weights[1]) / weights[0];
  }
  if (slab.router_logits.empty()) return std::nullopt;
  const auto z = slab.of_row(slab.router_logits, row).subspan(size_t(t) * slab.experts, slab.experts);
  return std::exp(double(z[chosen[1]]) - z[chosen[0]]);
}

bool counts(const RoutingSlab& slab, int t) { return slab.mask.empty() || slab.mask[t] != 0; }

}  // namespace

size_t StreamingMedian::bin(double value) { return size_t(std::clamp(value * double(kBins), 0.0, double(kBins - 1))); }

void StreamingMedian::count(double value) {
  if (std::isnan(value)) return;
  ++bins_[bin(value)];
  ++total_;
}

void StreamingMedian::begin_second_walk() {
  if (total_ == 0) return;
  rank_ = {(total_ - 1) / 2, total_ / 2};
  for (int side = 0; side < 2; ++side) {
    uint64_t below = 0;
    size_t at = 0;
    while (below + bins_[at] <= rank_[side]) below += bins_[at++];
    wanted_[side] = at;
    before_[side] = below;
  }
}

void StreamingMedian::collect(double value) {
  if (std::isnan(value)) return;
  const size_t at = bin(value);
  for (int side = 0; side < 2; ++side)
    if (at == wanted_[side]) ++kept_[side][value];
}

std::optional<double> StreamingMedian::median() const {
  if (total_ == 0) return std::nullopt;
  double sum = 0;
  for (int side = 0; side < 2; ++side) {
    uint64_t below = before_[side];
    for (const auto& [value, count] : kept_[side]) {
      below += count;
      if (below > rank_[side]) {
        sum += value;
        break;
      }
    }
  }
  return sum / 2;
}

Result<void> GateSharpness::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(rows_.size())));
  Row& sums = rows_[row];
  const auto entropy = slab.of_row(slab.entropy, row), mass = slab.of_row(slab.topk_mass, row), margin = slab.of_row(slab.margin, row);
  const auto logits = slab.of_row(slab.router_logits, row);
  std::vector<float> sorted;
  for (int t = 0; t < slab.tokens; ++t) {
    if (!counts(slab, t)) continue;
    ++sums.tokens;
    if (const auto ratio = ratio_of(slab, row, t)) sums.ratio.count(*ratio);
    Scores scores;
    if (!entropy.empty() && !mass.empty() && !margin.empty()) {
      scores = {entropy[t], mass[t], margin[t]};
    } else if (!logits.empty()) {
      const auto z = logits.subspan(size_t(t) * slab.experts, slab.experts);
      if (!std::all_of(z.begin(), z.end(), [](float value) { return std::isfinite(value); })) continue;
      scores = scores_of(z, size_t(slab.k), sorted);
    } else {
      continue;
    }
    ++sums.scored;
    sums.entropy += scores.entropy;
    sums.mass += scores.mass;
    sums.margin += scores.margin;
  }
  return {};
}

void GateSharpness::begin_second_walk() {
  for (Row& row : rows_) row.ratio.begin_second_walk();
}

Result<void> GateSharpness::feed_again(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(rows_.size())));
  for (int t = 0; t < slab.tokens; ++t) {
    if (!counts(slab, t)) continue;
    if (const auto ratio = ratio_of(slab, row, t)) rows_[row].ratio.collect(*ratio);
  }
  return {};
}

SharpnessStats GateSharpness::stats(int row) const {
  const Row& sums = rows_[row];
  SharpnessStats stats;
  stats.tokens = sums.tokens;
  stats.median_w2_over_w1 = sums.ratio.median();
  if (sums.scored == 0) return stats;
  const double scored = double(sums.scored);
  stats.mean_entropy = sums.entropy / scored;
  stats.mean_topk_mass = sums.mass / scored;
  stats.mean_margin = sums.margin / scored;
  return stats;
}

double flip_radius(double margin, std::span<const float> w_k, std::span<const float> w_next) {
  double squares = 0;
  for (size_t i = 0; i < w_k.size(); ++i) squares += (double(w_k[i]) - w_next[i]) * (double(w_k[i]) - w_next[i]);
  return margin / std::sqrt(squares);
}

double softmax_entropy(std::span<const float> logits, double temperature) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double total = 0, weighted = 0;
  for (const float z : logits) {
    const double scaled = (z - top) / temperature;
    total += std::exp(scaled);
    weighted += std::exp(scaled) * scaled;
  }
  return std::log(total) - weighted / total;
}

}  // namespace switchyard

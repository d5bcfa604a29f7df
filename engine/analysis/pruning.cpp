// See pruning.h.
#include "engine/analysis/pruning.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/analysis/check_ids.h"
#include "engine/analysis/quantile.h"

namespace switchyard {

Result<void> ExpertSaliency::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  Saliency* sums = sums_.data() + size_t(row) * experts_;
  const auto weights = slab.of_row(slab.weights, row), norms = slab.of_row(slab.out_norm, row), cosines = slab.of_row(slab.block_cos, row);
  for (int t = 0; t < slab.tokens; ++t) {
    const auto chosen = slab.token(row, t);
    double total = 0;
    for (int slot = 0; slot < slab.k; ++slot)
      if (chosen[slot] != kNoExpert) total += weights[size_t(t) * slab.k + slot];
    for (int slot = 0; slot < slab.k; ++slot) {
      if (chosen[slot] == kNoExpert) continue;
      const size_t cell = size_t(t) * slab.k + slot;
      const double g = renormalise_ ? (total > 0 ? weights[cell] / total : 0) : weights[cell];
      Saliency& sum = sums[chosen[slot]];
      ++sum.frequency;
      sum.seer_soft += g;
      if (norms.empty()) continue;
      sum.ean_sum += norms[cell];
      sum.weighted_ean += g * norms[cell];
      if (!cosines.empty()) sum.easy_ep += std::max(0.0, 1 - double(cosines[t])) * g * norms[cell];
    }
  }
  return {};
}

void ExpertSaliency::merge(const ExpertSaliency& other) {
  for (size_t cell = 0; cell < sums_.size(); ++cell) {
    Saliency& sum = sums_[cell];
    const Saliency& more = other.sums_[cell];
    sum.frequency += more.frequency;
    sum.seer_soft += more.seer_soft;
    sum.ean_sum += more.ean_sum;
    sum.weighted_ean += more.weighted_ean;
    sum.easy_ep += more.easy_ep;
  }
}

std::vector<ExpertId> pruned_set(std::span<const double> scores, int keep) {
  std::vector<ExpertId> order(scores.size());
  std::iota(order.begin(), order.end(), ExpertId(0));
  std::stable_sort(order.begin(), order.end(), [&](ExpertId a, ExpertId b) { return scores[a] > scores[b]; });
  order.erase(order.begin(), order.begin() + std::clamp<ptrdiff_t>(keep, 0, ptrdiff_t(order.size())));
  std::sort(order.begin(), order.end());
  return order;
}

double set_jaccard(std::span<const ExpertId> a, std::span<const ExpertId> b) {
  std::vector<ExpertId> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  const size_t either = a.size() + b.size() - both.size();
  return either == 0 ? 1 : double(both.size()) / double(either);
}

std::vector<double> mean_ranks(std::span<const double> x) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return x[i] < x[j]; });
  std::vector<double> rank(x.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && x[order[end]] == x[order[i]]) ++end;
    for (size_t j = i; j < end; ++j) rank[order[j]] = (double(i) + double(end - 1)) / 2;
    i = end;
  }
  return rank;
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  const auto x = mean_ranks(a), y = mean_ranks(b);
  const double mean = (double(x.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx == 0 || yy == 0 ? 0 : xy / std::sqrt(xx * yy);
}

int experts_for_share(std::span<const uint64_t> counts, int percent) {
  std::vector<uint64_t> falling(counts.begin(), counts.end());
  std::sort(falling.begin(), falling.end(), std::greater<>());
  const unsigned __int128 total = std::accumulate(falling.begin(), falling.end(), uint64_t(0));
  unsigned __int128 sum = 0;
  if (total == 0) return 0;
  for (size_t n = 0; n < falling.size(); ++n) {
    sum += falling[n];
    if (sum * 100 >= total * unsigned(percent)) return int(n) + 1;
  }
  return int(falling.size());
}

SuperExperts super_experts(std::span<const float> max_act, int rows, double percentile, double first_rows_share) {
  SuperExperts out;
  if (max_act.empty()) return out;
  std::vector<double> sorted(max_act.begin(), max_act.end());
  std::sort(sorted.begin(), sorted.end());
  out.quantile = quantile(sorted, percentile / 100);
  out.threshold = std::max(out.quantile, sorted.back() / 10);
  const size_t experts = max_act.size() / size_t(rows);
  for (int row = 0; row < int(first_rows_share * rows); ++row)
    for (size_t e = 0; e < experts; ++e)
      if (max_act[size_t(row) * experts + e] > out.threshold) out.experts.emplace_back(row, ExpertId(e));
  return out;
}

std::vector<double> naee_losses(std::span<const double> outputs, std::span<const double> logits, int experts, int k, int width,
                                std::span<const int> blocks) {
  const auto output_of = [&](int token, int without) {
    std::vector<int> order;
    for (int e = 0; e < experts; ++e)
      if (e != without) order.push_back(e);
    const double* z = logits.data() + size_t(token) * experts;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return z[a] > z[b]; });
    order.resize(std::min<size_t>(order.size(), k));
    double total = 0;
    for (const int e : order) total += std::exp(z[e] - z[order[0]]);
    std::vector<double> sum(width);
    for (const int e : order)
      for (int i = 0; i < width; ++i)
        sum[i] += std::exp(z[e] - z[order[0]]) / total * outputs[(size_t(token) * experts + e) * width + i];
    return sum;
  };
  std::vector<double> losses(experts);
  for (int e = 0; e < experts; ++e) {
    for (size_t block = 0; block + 1 < blocks.size(); ++block) {
      double squares = 0;
      for (int token = blocks[block]; token < blocks[block + 1]; ++token) {
        const auto full = output_of(token, -1), less = output_of(token, e);
        for (int i = 0; i < width; ++i) squares += (full[i] - less[i]) * (full[i] - less[i]);
      }
      losses[e] += std::sqrt(squares);
    }
  }
  return losses;
}

std::vector<double> merged_weights(std::span<const double> f, std::span<const std::vector<double>> weights, std::span<const int> members) {
  std::vector<double> out(weights.empty() ? 0 : weights[0].size());
  double total = 0;
  for (const int member : members) total += f[member];
  for (const int member : members)
    for (size_t i = 0; i < out.size(); ++i) out[i] += f[member] / total * weights[member][i];
  return out;
}

}  // namespace switchyard

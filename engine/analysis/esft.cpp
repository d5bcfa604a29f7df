// See esft.h.
#include "engine/analysis/esft.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

// To the nearest decimal as the exact binary value says, halves to even: what the published scripts' language does.
double rounded(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return std::strtod(text, nullptr);
}

}  // namespace

Result<void> EsftScores::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(rows_.size())));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  Row& sums = rows_[row];
  const auto ids = slab.row_ids(row);
  const auto weights = slab.of_row(slab.weights, row);
  for (int t = 0; t < slab.tokens; ++t) sums.tokens += slab.mask.empty() || slab.mask[t] != 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == kNoExpert) continue;
    ++sums.counts[ids[i]];
    if (!weights.empty()) sums.weights[ids[i]] += weights[i];
  }
  return {};
}

std::vector<double> EsftScores::token_scores(int row, int k) const {
  std::vector<double> out(experts_);
  const Row& sums = rows_[row];
  for (int e = 0; e < experts_ && sums.tokens > 0; ++e) out[e] = double(sums.counts[e]) / (double(k) * double(sums.tokens));
  return out;
}

std::vector<double> EsftScores::gate_scores(int row) const {
  std::vector<double> out(experts_);
  const Row& sums = rows_[row];
  for (int e = 0; e < experts_ && sums.tokens > 0; ++e) out[e] = sums.weights[e] / double(sums.tokens);
  return out;
}

std::vector<ExpertId> esft_set(std::span<const double> scores, double threshold, int decimals) {
  std::vector<double> rounding;
  for (const double score : scores) rounding.push_back(rounded(score, decimals));
  std::vector<ExpertId> order(scores.size());
  std::iota(order.begin(), order.end(), ExpertId(0));
  std::stable_sort(order.begin(), order.end(), [&](ExpertId a, ExpertId b) { return rounding[a] > rounding[b]; });
  double sum = 0;
  size_t taken = 0;
  while (taken < order.size() && sum < threshold) sum += rounding[order[taken++]];
  order.resize(taken);
  return order;
}

}  // namespace switchyard

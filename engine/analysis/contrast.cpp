// See contrast.h.
#include "engine/analysis/contrast.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/analysis/quantile.h"
#include "engine/base/philox.h"

namespace switchyard {
namespace {

struct Moments {
  double mean = 0, variance = 0;
};
Moments moments(std::span<const double> x) {
  if (x.empty()) return {};
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
  double sum = 0;
  for (const double v : x) sum += (v - mean) * (v - mean);
  return {mean, sum / double(x.size())};
}

}  // namespace

RoutingDifference routing_difference(std::span<const uint64_t> counts_a, uint64_t tokens_a, std::span<const uint64_t> counts_b, uint64_t tokens_b) {
  RoutingDifference out;
  const auto na = double(tokens_a), nb = double(tokens_b);
  for (size_t e = 0; e < counts_a.size(); ++e) {
    const double rd = double(counts_a[e]) / na - double(counts_b[e]) / nb;
    const double pooled = double(counts_a[e] + counts_b[e]) / (na + nb);
    out.rd.push_back(rd);
    out.z.push_back(pooled <= 0 || pooled >= 1 ? 0 : rd / std::sqrt(pooled * (1 - pooled) * (1 / na + 1 / nb)));
  }
  return out;
}

double effect_size(std::span<const double> a, std::span<const double> b) {
  const Moments x = moments(a), y = moments(b);
  const double difference = x.mean - y.mean, spread = std::sqrt(x.variance + y.variance);
  return difference == 0 && spread == 0 ? 0 : difference / spread;
}

double two_sided_p(double z) { return std::erfc(std::abs(z) / std::sqrt(2.0)); }

std::vector<double> benjamini_hochberg(std::span<const double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> q(p.size());
  double least = 1;
  for (size_t rank = order.size(); rank-- > 0;) {
    least = std::min(least, p[order[rank]] * double(p.size()) / double(rank + 1));
    q[order[rank]] = least;
  }
  return q;
}

void ContrastProfile::begin_text(int side) { texts_.push_back({side, 0, std::vector<uint32_t>(size_t(rows_) * size_t(experts_))}); }

Result<void> ContrastProfile::feed(int row, std::span<const ExpertId> ids) {
  for (const ExpertId id : ids)
    if (id >= experts_) return fail(ErrorCode::kInternal, "expert " + std::to_string(id) + " of " + std::to_string(experts_) + " was counted.");
  for (const ExpertId id : ids) ++texts_.back().counts[size_t(row) * size_t(experts_) + id];
  return {};
}

uint64_t ContrastProfile::tokens(int side) const {
  uint64_t total = 0;
  for (const Text& text : texts_) total += text.side == side ? text.tokens : 0;
  return total;
}

uint64_t ContrastProfile::texts(int side) const {
  return uint64_t(std::count_if(texts_.begin(), texts_.end(), [&](const Text& text) { return text.side == side; }));
}

std::vector<ExpertContrast> ContrastProfile::result(int resamples, uint64_t seed) const {
  const size_t cells = size_t(rows_) * size_t(experts_);
  std::vector<uint64_t> counts[2];
  std::vector<const Text*> texts[2];
  for (const int side : {0, 1}) counts[side].assign(cells, 0);
  for (const Text& text : texts_) {
    texts[text.side].push_back(&text);
    for (size_t cell = 0; cell < cells; ++cell) counts[text.side][cell] += text.counts[cell];
  }
  const uint64_t na = tokens(0), nb = tokens(1);
  if (na == 0 || nb == 0) return {};
  const RoutingDifference difference = routing_difference(counts[0], na, counts[1], nb);
  std::vector<ExpertContrast> out(cells);
  std::vector<double> p(cells);
  for (size_t cell = 0; cell < cells; ++cell) {
    ExpertContrast& one = out[cell];
    one.row = int(cell / size_t(experts_)), one.expert = ExpertId(cell % size_t(experts_));
    one.rate_a = double(counts[0][cell]) / double(na), one.rate_b = double(counts[1][cell]) / double(nb);
    one.rd = one.low = one.high = difference.rd[cell];
    one.z = difference.z[cell];
    p[cell] = one.p = two_sided_p(one.z);
  }
  const std::vector<double> q = benjamini_hochberg(p);
  for (size_t cell = 0; cell < cells; ++cell) out[cell].q = q[cell];

  if (resamples > 0 && texts[0].size() > 1 && texts[1].size() > 1) {
    // How often every text is drawn in every resample; then the differences cell by cell.
    std::vector<std::vector<double>> draws(cells);
    for (int turn = 0; turn < resamples; ++turn) {
      std::vector<double> sums[2];
      double tokens_drawn[2] = {0, 0};
      for (const int side : {0, 1}) {
        sums[side].assign(cells, 0);
        for (size_t i = 0; i < texts[side].size(); ++i) {
          const auto words = philox4x32({uint32_t(i), uint32_t(turn), uint32_t(side), 2}, {uint32_t(seed), uint32_t(seed >> 32)});
          const Text& text = *texts[side][size_t(unit_interval(words[0]) * double(texts[side].size()))];
          tokens_drawn[side] += double(text.tokens);
          for (size_t cell = 0; cell < cells; ++cell) sums[side][cell] += text.counts[cell];
        }
      }
      if (tokens_drawn[0] == 0 || tokens_drawn[1] == 0) continue;
      for (size_t cell = 0; cell < cells; ++cell)
        draws[cell].push_back(sums[0][cell] / tokens_drawn[0] - sums[1][cell] / tokens_drawn[1]);
    }
    for (size_t cell = 0; cell < cells; ++cell) {
      if (draws[cell].empty()) continue;
      std::sort(draws[cell].begin(), draws[cell].end());
      out[cell].low = quantile(draws[cell], 0.025);
      out[cell].high = quantile(draws[cell], 0.975);
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const ExpertContrast& a, const ExpertContrast& b) { return std::abs(a.rd) > std::abs(b.rd); });
  return out;
}

}  // namespace switchyard

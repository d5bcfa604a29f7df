// See locality.h.
#include "engine/analysis/locality.h"

#include <algorithm>
#include <cmath>

#include "engine/analysis/check_ids.h"
#include "engine/analysis/quantile.h"
#include "engine/base/philox.h"

namespace switchyard {
namespace {

// F1 from the sums of a threshold: TP = sum of f over windows with f >= a, Pred = m times their number.
double f1(double hits, double predicted, double active) {
  const double total = predicted + active;
  return total == 0 ? 0 : 2 * hits / total;
}

template <class T>
std::optional<SrpStats> best_threshold(std::span<const T> histogram) {
  const int m = int(histogram.size()) - 1;
  double active = 0, windows = 0;
  for (int f = 0; f <= m; ++f) {
    active += double(f) * double(histogram[f]);
    windows += double(histogram[f]);
  }
  if (windows == 0) return std::nullopt;
  SrpStats best{-1, 0, 0};
  double hits = active, count = windows;  // of the windows with f >= a
  for (int a = 0; a <= m; ++a) {
    const double value = f1(hits, m * count, active);
    if (value > best.srp) best = {value, active > 0 ? m * count / active : 0, a};
    hits -= double(a) * double(histogram[a]);
    count -= double(histogram[a]);
  }
  return best;
}

template <class To, class From>
void add(std::vector<To>& to, std::span<const From> from) {
  for (size_t i = 0; i < from.size(); ++i) to[i] += To(from[i]);
}

}  // namespace

std::optional<SrpStats> srp_stats(std::span<const uint64_t> histogram) { return best_threshold(histogram); }

double srp_f1(std::span<const uint64_t> histogram, int threshold) {
  const int m = int(histogram.size()) - 1;
  double active = 0, hits = 0, count = 0;
  for (int f = 0; f <= m; ++f) {
    active += double(f) * double(histogram[f]);
    if (f < threshold) continue;
    hits += double(f) * double(histogram[f]);
    count += double(histogram[f]);
  }
  return f1(hits, m * count, active);
}

double random_srp(int window, int experts, int k) {
  const double p = std::min(1.0, double(k) / experts);
  std::vector<double> expected(window + 1);
  for (int f = 0; f <= window; ++f) {
    const double ways = std::lgamma(window + 1.0) - std::lgamma(f + 1.0) - std::lgamma(window - f + 1.0);
    expected[f] = p >= 1 ? (f == window ? 1 : 0) : std::exp(ways + f * std::log(p) + (window - f) * std::log1p(-p));
  }
  return best_threshold(std::span<const double>(expected))->srp;
}

Locality::Locality(int rows, int experts, std::vector<int> windows, bool keep_sequences)
    : experts_(experts), windows_(std::move(windows)), keep_sequences_(keep_sequences), rows_(rows) {
  for (Row& row : rows_) {
    row.sliding.resize(windows_.size());
    for (size_t w = 0; w < windows_.size(); ++w) {
      row.sliding[w].histogram.resize(size_t(experts) * (windows_[w] + 1));
      row.sliding[w].pooled.resize(windows_[w] + 1);
      row.sliding[w].count.resize(experts);
      row.sliding[w].since.resize(experts);
    }
  }
}

void Locality::close_run(Sliding& sliding, int m, ExpertId expert) {
  const uint64_t run = sliding.windows - sliding.since[expert];
  sliding.histogram[size_t(expert) * (m + 1) + sliding.count[expert]] += run;
  sliding.pooled[sliding.count[expert]] += run;
  sliding.since[expert] = sliding.windows;
}

void Locality::end_sequence(Row& row) {
  for (size_t w = 0; w < windows_.size(); ++w) {
    Sliding& sliding = row.sliding[w];
    for (int e = 0; e < experts_; ++e) close_run(sliding, windows_[w], ExpertId(e));
    if (keep_sequences_ && sliding.windows > 0) sliding.after_sequence.push_back(sliding.pooled);
    std::fill(sliding.count.begin(), sliding.count.end(), 0);
    std::fill(sliding.since.begin(), sliding.since.end(), 0);
    sliding.windows = sliding.tokens = 0;
  }
}

Result<void> Locality::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(rows_.size())));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  Row& state = rows_[row];
  for (int t = 0; t < slab.tokens; ++t) {
    if (state.sequence != int64_t(slab.sequence[t])) {
      if (state.sequence >= 0) end_sequence(state);
      state.sequence = slab.sequence[t];
    }
    const auto chosen = slab.token(row, t);
    for (size_t w = 0; w < windows_.size(); ++w) {
      const int m = windows_[w];
      Sliding& sliding = state.sliding[w];
      sliding.ring.resize(size_t(m) * slab.k, kNoExpert);
      const auto change = [&](ExpertId id, int by) {
        if (id == kNoExpert) return;
        close_run(sliding, m, id);
        sliding.count[id] += uint32_t(by);
      };
      const auto leaving = std::span(sliding.ring).subspan(sliding.tokens % uint64_t(m) * slab.k, slab.k);
      if (sliding.tokens >= uint64_t(m))
        for (const ExpertId id : leaving) change(id, -1);
      for (const ExpertId id : chosen) change(id, +1);
      std::copy(chosen.begin(), chosen.end(), leaving.begin());
      if (++sliding.tokens >= uint64_t(m)) ++sliding.windows;
    }
  }
  return {};
}

void Locality::finish() {
  for (Row& row : rows_) {
    if (row.sequence >= 0) end_sequence(row);
    row.sequence = -1;
  }
}

std::span<const uint64_t> Locality::expert(int window, int row, ExpertId expert) const {
  const size_t bins = windows_[window] + 1;
  return std::span<const uint64_t>(rows_[row].sliding[window].histogram).subspan(expert * bins, bins);
}

std::vector<uint64_t> Locality::row(int window, int row) const { return rows_[row].sliding[window].pooled; }

std::vector<uint64_t> Locality::all(int window) const {
  std::vector<uint64_t> sum(windows_[window] + 1);
  for (size_t r = 0; r < rows_.size(); ++r) {
    const auto one = row(window, int(r));
    add(sum, std::span<const uint64_t>(one));
  }
  return sum;
}

std::optional<Locality::Interval> Locality::interval(int window, int resamples, uint64_t seed) const {
  const size_t bins = windows_[window] + 1, count = rows_.empty() ? 0 : rows_[0].sliding[window].after_sequence.size();
  if (count < 2 || resamples < 1) return std::nullopt;
  std::vector<std::vector<double>> sequences(count, std::vector<double>(bins));  // each one's histogram over all rows
  for (const Row& row : rows_) {
    const auto& running = row.sliding[window].after_sequence;
    for (size_t s = 0; s < count; ++s)
      for (size_t f = 0; f < bins; ++f) sequences[s][f] += double(running[s][f] - (s > 0 ? running[s - 1][f] : 0));
  }
  std::vector<double> values(resamples);
  std::vector<double> sum(bins);
  for (int turn = 0; turn < resamples; ++turn) {
    std::fill(sum.begin(), sum.end(), 0);
    for (size_t s = 0; s < count; ++s) {
      const auto words = philox4x32({uint32_t(s), uint32_t(turn), uint32_t(window), 3}, {uint32_t(seed), uint32_t(seed >> 32)});
      add(sum, std::span<const double>(sequences[size_t(unit_interval(words[0]) * double(count))]));
    }
    values[turn] = best_threshold(std::span<const double>(sum))->srp;
  }
  std::sort(values.begin(), values.end());
  const double theta = srp_stats(all(window))->srp;
  return Interval{2 * theta - quantile(values, 0.975), 2 * theta - quantile(values, 0.025)};
}

}  // namespace switchyard

// Local routing consistency (specs/analyses.md A8): SRP, how well "this expert is used in this window of m tokens"
// can be predicted by one threshold on the count. Streaming, slab after slab; histograms add, so that any grouping
// is exact. No files. Rows may be fed from different threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

struct SrpStats {
  double srp = 0;     // max over thresholds a of F1
  double rho = 0;     // Pred / Act at that threshold
  int threshold = 0;  // the lowest that reaches it
};
// histogram: [m + 1] windows by the number of activations in them. No windows: nothing.
std::optional<SrpStats> srp_stats(std::span<const uint64_t> histogram);
// F1 of one threshold.
double srp_f1(std::span<const uint64_t> histogram, int threshold);
// What routing at random gives: the count in a window is binomial(m, k / E).
double random_srp(int window, int experts, int k);

class Locality {
 public:
  // keep_sequences: also a histogram per sequence, all rows and experts together, for resampling.
  Locality(int rows, int experts, std::vector<int> windows, bool keep_sequences = false);
  // Slabs in order; then finish() once.
  Result<void> feed(const RoutingSlab& slab, int row);
  void finish();

  const std::vector<int>& windows() const { return windows_; }
  // [m + 1] of one expert, of one row, of all rows. `window`: index into windows().
  std::span<const uint64_t> expert(int window, int row, ExpertId expert) const;
  std::vector<uint64_t> row(int window, int row) const;
  std::vector<uint64_t> all(int window) const;

  struct Interval {
    double low = 0, high = 0;
  };
  // Basic bootstrap interval (2 SRP - percentile) of 95 % over sequences; nothing without keep_sequences or with
  // fewer than two sequences that have a window.
  std::optional<Interval> interval(int window, int resamples, uint64_t seed) const;

 private:
  // The count of each expert in the window that ends at the present token. A count stays for a run of tokens, which
  // is added to the histogram when it ends: work per token is that of the experts that come and go.
  struct Sliding {
    std::vector<uint32_t> count;        // [E]
    std::vector<uint64_t> since;        // [E]: windows of the sequence before the present count began
    std::vector<uint64_t> histogram;    // [E, m + 1]
    std::vector<uint64_t> pooled;       // [m + 1]: its sum over experts
    std::vector<ExpertId> ring;         // [m, k]: what leaves
    uint64_t windows = 0;               // of this sequence so far
    uint64_t tokens = 0;                // of this sequence so far
    std::vector<std::vector<uint64_t>> after_sequence;  // [S][m + 1]: `pooled` when the sequence ended
  };
  struct Row {
    int64_t sequence = -1;
    std::vector<Sliding> sliding;  // [windows]
  };
  static void close_run(Sliding& sliding, int m, ExpertId expert);
  void end_sequence(Row& row);

  int experts_;
  std::vector<int> windows_;
  bool keep_sequences_;
  std::vector<Row> rows_;
};

}  // namespace switchyard

// How sharp a gate is (specs/analyses.md A2): mass of the chosen, margin to the first that is not, and the ratio of the
// second weight to the first, whose median is the threshold of dynamic expert skipping. Of the gate as it decided, edits
// included, whatever the capture level. Streaming; the median is exact and takes a second walk. No files. Rows may be fed
// from different threads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

// The median of values that come twice, in any order: the first walk counts them in bins over [0, 1], the second
// keeps those of the middle bins. Bounded memory unless the middle bin holds many different values.
class StreamingMedian {
 public:
  void count(double value);
  void begin_second_walk();
  void collect(double value);
  std::optional<double> median() const;  // mean of the two middle values for an even count

 private:
  static constexpr size_t kBins = size_t(1) << 16;
  static size_t bin(double value);
  std::vector<uint64_t> bins_ = std::vector<uint64_t>(kBins);
  uint64_t total_ = 0;
  std::array<uint64_t, 2> rank_{};                     // of the two middle values, from 0
  std::array<size_t, 2> wanted_{};                     // their bins
  std::array<uint64_t, 2> before_{};                   // values in lower bins
  std::array<std::map<double, uint64_t>, 2> kept_;
};

struct SharpnessStats {
  uint64_t tokens = 0;
  std::optional<double> mean_entropy, mean_topk_mass, mean_margin;  // nothing where the trace holds no scores
  std::optional<double> median_w2_over_w1;                          // nothing for k = 1
};

class GateSharpness {
 public:
  explicit GateSharpness(int rows) : rows_(rows) {}
  // Entropy, mass and margin as the engine wrote them, and the ratio of the weights as applied, where the slab has them;
  // else from router_logits (softmax over all; margin = k-th minus (k + 1)-th logit).
  Result<void> feed(const RoutingSlab& slab, int row);
  void begin_second_walk();
  Result<void> feed_again(const RoutingSlab& slab, int row);
  SharpnessStats stats(int row) const;

 private:
  struct Row {
    uint64_t tokens = 0, scored = 0;
    double entropy = 0, mass = 0, margin = 0;
    StreamingMedian ratio;
  };
  std::vector<Row> rows_;
};

// Smallest change of the hidden state that swaps the k-th expert for the next: margin / |w_k - w_next|. Linear routers.
double flip_radius(double margin, std::span<const float> w_k, std::span<const float> w_next);
// Of softmax(logits / temperature), nats.
double softmax_entropy(std::span<const float> logits, double temperature = 1);

}  // namespace switchyard

// Contrastive profiles: which experts two sets of texts use differently (specs/gating.md 1.4). Natural counts, double
// arithmetic. Streaming over texts; no files. Used by `calibrate contrast`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

// Corrected p under which an expert counts as used differently, where nobody asks for another level.
inline constexpr double kSignificanceLevel = 0.05;

// One expert of one routing row. Rates: share of a side's tokens that select the expert.
struct ExpertContrast {
  int row = 0;
  ExpertId expert = 0;
  double rate_a = 0, rate_b = 0;
  double rd = 0;              // rate_a - rate_b
  double z = 0;               // pooled two-proportion z, tokens taken as independent; 0 where the pooled rate is 0 or 1
  double p = 1;               // two-sided, of z
  double q = 1;               // p after Benjamini-Hochberg over all experts of all rows
  double low = 0, high = 0;   // 95 % interval of rd, texts resampled (tokens of a text hang together)
};

// rd and z of counts against token totals; [E] each.
struct RoutingDifference {
  std::vector<double> rd, z;
};
RoutingDifference routing_difference(std::span<const uint64_t> counts_a, uint64_t tokens_a, std::span<const uint64_t> counts_b, uint64_t tokens_b);

// (mean a - mean b) / sqrt(var a + var b), population variances; 0 / 0 is 0.
double effect_size(std::span<const double> a, std::span<const double> b);

// Adjusted p-values (Benjamini and Hochberg 1995), in the order given.
std::vector<double> benjamini_hochberg(std::span<const double> p);

double two_sided_p(double z);

class ContrastProfile {
 public:
  ContrastProfile(int rows, int experts) : rows_(rows), experts_(experts) {}

  // side: 0 = A, 1 = B. A text begins; then its tokens' chosen experts, row by row.
  void begin_text(int side);
  // ids: chosen experts of one token, without empty slots. An id beyond the experts is an error; nothing is counted.
  Result<void> feed(int row, std::span<const ExpertId> ids);
  void count_token() { ++texts_.back().tokens; }

  uint64_t tokens(int side) const;
  uint64_t texts(int side) const;

  // All experts of all rows by falling |rd|, then row, then id. resamples: of the intervals; 0, or fewer than two texts
  // on a side: low = high = rd. seed: of the resampling.
  std::vector<ExpertContrast> result(int resamples = 1000, uint64_t seed = 0) const;

 private:
  struct Text {
    int side = 0;
    uint64_t tokens = 0;
    std::vector<uint32_t> counts;  // [rows, experts]
  };
  int rows_, experts_;
  std::vector<Text> texts_;
};

}  // namespace switchyard

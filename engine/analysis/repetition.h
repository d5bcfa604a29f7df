// Temporal repetition (specs/analyses.md A7): how often neighbouring tokens of a sequence share experts, and after how
// many tokens an expert is used again. Streaming, slab after slab; no files. Rows may be fed from different threads.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

struct RepetitionStats {
  static constexpr int kDistances = 8;                   // 1 .. 8, then all above
  uint64_t pairs = 0;                                    // of neighbouring tokens
  uint64_t same_first = 0;                               // first choices equal
  uint64_t any_shared = 0;                               // at least one expert in common
  double mean_overlap = 0;                               // |T_t n T_{t-1}| / k
  std::array<uint64_t, kDistances + 1> reuse_distance{}; // tokens since the expert's last use in the sequence
  uint64_t first_uses = 0;
};

class Repetition {
 public:
  Repetition(int rows, int experts, int k);
  // Slabs in order.
  Result<void> feed(const RoutingSlab& slab, int row);
  RepetitionStats stats(int row) const;

 private:
  struct Row {
    RepetitionStats sums;
    uint64_t overlap = 0;
    int64_t sequence = -1;           // of the token before
    std::vector<ExpertId> previous;  // [k]
    std::vector<int64_t> last_use;   // [E]: position in the sequence, or -1
  };
  int experts_, k_;
  std::vector<Row> rows_;
};

// Of two random choices of k among E: same first choice 1 / E, one shared at least 1 - C(E-k, k) / C(E, k), overlap k / E.
struct RandomRepetition {
  double same_first = 0, any_shared = 0, overlap = 0;
};
RandomRepetition random_repetition(int experts, int k);

}  // namespace switchyard

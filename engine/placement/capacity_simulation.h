// Which slots an expert capacity would have dropped (specs/analyses.md A14). The trace's own choices are replayed: what
// a model would choose after a drop is not simulated.
// Streaming; memory holds the longest group. Called by the command line and jobs, on one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

enum class CapacityRounding { kFloor, kCeil, kEven };  // kEven: down to an even number
enum class FillOrder {
  kRankMajor,   // all first choices by position, then all second ones
  kTokenMajor,  // token after token, its choices in slot order
  kPrioritised  // rank-major, tokens by falling weight of their first choice (batch prioritised routing)
};
Result<CapacityRounding> parse_capacity_rounding(std::string_view text);  // floor, ceil, even
Result<FillOrder> parse_fill_order(std::string_view text);                // rank-major, token-major, prioritised

struct CapacityOptions {
  double factor = 1.0;  // cf > 0
  FillOrder fill = FillOrder::kRankMajor;
  CapacityRounding rounding = CapacityRounding::kFloor;
  int64_t min_capacity = 0;  // never below it
  int group_tokens = 0;      // tokens that compete for capacity; 0: the sequence. Groups end with sequences
};

// C of a group of T tokens: k * cf * T / E in double, rounded, at least min_capacity.
int64_t group_capacity(const CapacityOptions& options, int k, int64_t tokens, int experts);

class CapacitySimulation {
 public:
  CapacitySimulation(int rows, int experts, const CapacityOptions& options);
  // Slabs in order. kUsage for kPrioritised where the slab has no weights; an id out of range is an error.
  Result<void> feed(const RoutingSlab& slab);
  void finish();

  // Tokens without any expert (left out by the trace's mask) neither count nor compete.
  uint64_t groups() const { return groups_; }
  std::span<const uint64_t> demands() const { return demands_; }  // [L]
  std::span<const uint64_t> drops() const { return drops_; }      // [L]
  // By position in the sequence, all layers and sequences.
  std::span<const uint64_t> drops_by_position() const { return drops_at_; }
  std::span<const uint64_t> demands_by_position() const { return demands_at_; }
  std::span<const uint64_t> drops_by_domain() const { return drops_in_; }  // [D]; empty without domains
  std::span<const uint64_t> demands_by_domain() const { return demands_in_; }
  std::span<const int64_t> last_capacities() const { return capacities_; }  // of each group, at most kKept of them
  static constexpr size_t kKept = 4096;

 private:
  void fill_group();

  int rows_, experts_, k_ = 0;
  CapacityOptions options_;
  bool open_ = false;
  uint32_t sequence_ = 0;
  struct Held {
    uint32_t position;
    uint16_t domain;
  };
  std::vector<Held> tokens_;                 // of the running group
  std::vector<std::vector<ExpertId>> ids_;   // [L]: [tokens, k]
  std::vector<std::vector<float>> weights_;  // [L]: weight of the first choice, prioritised only
  bool with_domains_ = false;
  uint64_t groups_ = 0;
  std::vector<uint64_t> demands_, drops_, demands_at_, drops_at_, demands_in_, drops_in_;
  std::vector<int64_t> capacities_;
};

}  // namespace switchyard

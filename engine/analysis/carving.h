// Carving an expert into a core that all texts use and a part for each domain, by the units that fire (Read-ME,
// specs/gating.md 1.3). Pure; no files; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// 1: the hidden unit is used.
using UnitMask = std::vector<uint8_t>;

struct Carving {
  UnitMask residual;              // in every mask
  std::vector<UnitMask> experts;  // of each mask what is not in the residual
};
// masks: one per domain, all of one length.
Carving carve(std::span<const UnitMask> masks);

// The `keep` units of largest mean |activation|; ties: lower index.
UnitMask strongest_units(std::span<const double> activation, size_t keep);

// Sums of |hidden unit| of one expert in every row, over the tokens that it took.
class UnitActivity {
 public:
  void add(int row, std::span<const float> units);
  uint64_t tokens(int row) const { return size_t(row) < rows_.size() ? rows_[size_t(row)].tokens : 0; }
  std::vector<double> mean(int row) const;  // [width]; empty: no token

 private:
  struct Row {
    uint64_t tokens = 0;
    std::vector<double> sum;
  };
  std::vector<Row> rows_;
};

}  // namespace switchyard

// See carving.h.
#include "engine/analysis/carving.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard {

Carving carve(std::span<const UnitMask> masks) {
  Carving out;
  if (masks.empty()) return out;
  out.residual = masks[0];
  for (const UnitMask& mask : masks)
    for (size_t i = 0; i < mask.size(); ++i) out.residual[i] &= mask[i];
  for (const UnitMask& mask : masks) {
    UnitMask& expert = out.experts.emplace_back(mask);
    for (size_t i = 0; i < expert.size(); ++i) expert[i] = mask[i] && !out.residual[i];
  }
  return out;
}

UnitMask strongest_units(std::span<const double> activation, size_t keep) {
  std::vector<size_t> order(activation.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return activation[a] > activation[b]; });
  UnitMask mask(activation.size(), 0);
  for (size_t i = 0; i < std::min(keep, order.size()); ++i) mask[order[i]] = 1;
  return mask;
}

void UnitActivity::add(int row, std::span<const float> units) {
  if (rows_.size() <= size_t(row)) rows_.resize(size_t(row) + 1);
  Row& at = rows_[size_t(row)];
  at.sum.resize(std::max(at.sum.size(), units.size()), 0.0);
  for (size_t i = 0; i < units.size(); ++i) at.sum[i] += std::abs(double(units[i]));
  ++at.tokens;
}

std::vector<double> UnitActivity::mean(int row) const {
  if (tokens(row) == 0) return {};
  std::vector<double> out = rows_[size_t(row)].sum;
  for (double& value : out) value /= double(rows_[size_t(row)].tokens);
  return out;
}

}  // namespace switchyard

// Quantiles by linear interpolation between ranks (specs/analyses.md section 0).
#pragma once

#include <algorithm>
#include <span>

namespace switchyard {

// rising: not empty. share: 0 to 1.
inline double quantile(std::span<const double> rising, double share) {
  const double at = share * double(rising.size() - 1);
  const auto low = size_t(at);
  const size_t high = std::min(low + 1, rising.size() - 1);
  return rising[low] + (at - double(low)) * (rising[high] - rising[low]);
}

}  // namespace switchyard

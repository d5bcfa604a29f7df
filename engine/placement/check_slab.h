// The one check of a slab that every simulation makes before it counts.
#pragma once

#include <string>

#include "engine/analysis/check_ids.h"
#include "engine/analysis/slab.h"

namespace switchyard {

// All rows are there, and every id is below `experts` or kNoExpert.
inline Result<void> check_slab(const RoutingSlab& slab, int rows, int experts) {
  if (slab.rows != rows)
    return fail(ErrorCode::kMalformed, "a slab of " + std::to_string(slab.rows) + " routing rows, " +
                                           std::to_string(rows) + " are simulated.");
  for (int r = 0; r < rows; ++r) SY_CHECK(check_ids(r, slab.row_ids(r), slab.k, experts));
  return {};
}

}  // namespace switchyard

// The one check of expert ids that every analysis makes before it counts.
#pragma once

#include <span>
#include <string>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

inline Result<void> check_row(int row, int rows) {
  if (row >= 0 && row < rows) return {};
  return fail(ErrorCode::kMalformed, "routing row " + std::to_string(row) + " of " + std::to_string(rows));
}

// ids: [tokens, k]; every id below `experts` or kNoExpert.
inline Result<void> check_ids(int row, std::span<const ExpertId> ids, int k, int experts) {
  const auto where = [&] { return "routing row " + std::to_string(row); };
  if (k < 1 || ids.size() % size_t(k) != 0) {
    return fail(ErrorCode::kMalformed,
                std::to_string(ids.size()) + " expert ids are not whole tokens of " + std::to_string(k) + " slots", where());
  }
  for (const ExpertId id : ids) {
    if (id != kNoExpert && id >= experts) {
      return fail(ErrorCode::kMalformed,
                  "expert " + std::to_string(id) + " is out of range: the row has " + std::to_string(experts) + " experts",
                  where());
    }
  }
  return {};
}

}  // namespace switchyard

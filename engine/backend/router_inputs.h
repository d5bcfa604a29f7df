// A tap that keeps what routers read (RouterTap in backend.h), end to end over all that is run while it is set.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace switchyard {

class RouterInputs final : public RouterTap {
 public:
  explicit RouterInputs(size_t rows) : rows_(rows) {}
  void see(int row, size_t, std::span<const float> input) override { rows_[size_t(row)].insert(rows_[size_t(row)].end(), input.begin(), input.end()); }
  const std::vector<float>& row(int row) const { return rows_[size_t(row)]; }  // [tokens, hidden]
  std::vector<std::vector<float>> take() { return std::move(rows_); }

 private:
  std::vector<std::vector<float>> rows_;
};

}  // namespace switchyard

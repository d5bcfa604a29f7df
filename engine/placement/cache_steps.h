// What the steps of one sequence demand, for the cache simulations; its own pieces only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"

namespace switchyard {

inline constexpr uint32_t kNoDemand = 0xFFFFFFFF;

// Demands of all steps of a sequence, each padded to `width` with kNoDemand.
struct StepDemands {
  size_t width = 0;
  std::vector<uint32_t> ids;
  size_t steps() const { return width == 0 ? 0 : ids.size() / width; }
  std::span<const uint32_t> step(size_t s) const { return std::span(ids).subspan(s * width, width); }
};

// rows: ids [tokens, k] of each row that shares a cache; expert e of the r-th is r * experts + e. In order of service:
// row, then token, then slot; an expert that several tokens of a step chose is demanded once. seen: grows as needed.
void demands_of(std::span<const std::vector<ExpertId>> rows, size_t k, size_t experts, size_t step_tokens,
                StepDemands& out, std::vector<uint32_t>& seen);

}  // namespace switchyard

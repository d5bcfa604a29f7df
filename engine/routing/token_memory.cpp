// See token_memory.h.
#include "engine/routing/token_memory.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr size_t kBlock = 64;

}  // namespace

void TokenMemory::prepare(int row, uint64_t first, size_t count, size_t experts, size_t width) {
  if (count == 0) return;
  if (rows_.size() <= size_t(row)) rows_.resize(size_t(row) + 1);
  Row& at = rows_[size_t(row)];
  at.experts = experts;
  if (width > 0) at.width = width;
  const size_t end = size_t(first) + count;
  if (at.blocks.size() * kBlock < end) at.blocks.resize((end + kBlock - 1) / kBlock);
  for (size_t block = size_t(first) / kBlock; block * kBlock < end; ++block) {
    std::shared_ptr<Block>& own = at.blocks[block];
    if (!own) own = std::make_shared<Block>();
    if (own.use_count() > 1) own = std::make_shared<Block>(*own);
    own->probabilities.resize(kBlock * experts);
    if (width > 0) own->inputs.resize(kBlock * width);
  }
  if (at.holds.size() < end) at.holds.resize(end);
  std::fill(at.holds.begin() + int64_t(first), at.holds.begin() + int64_t(end), uint8_t(width > 0 ? 2 : 1));
}

std::span<float> TokenMemory::write_probabilities(int row, uint64_t token) {
  Row& at = rows_[size_t(row)];
  return std::span(at.blocks[token / kBlock]->probabilities).subspan(token % kBlock * at.experts, at.experts);
}

std::span<float> TokenMemory::write_input(int row, uint64_t token) {
  Row& at = rows_[size_t(row)];
  return std::span(at.blocks[token / kBlock]->inputs).subspan(token % kBlock * at.width, at.width);
}

const TokenMemory::Row* TokenMemory::row_with(int row, uint64_t token, uint8_t least) const {
  if (size_t(row) >= rows_.size()) return nullptr;
  const Row& at = rows_[size_t(row)];
  return token < at.holds.size() && at.holds[token] >= least ? &at : nullptr;
}

std::span<const float> TokenMemory::probabilities(int row, uint64_t token) const {
  const Row* at = row_with(row, token, 1);
  if (!at) return {};
  return std::span<const float>(at->blocks[token / kBlock]->probabilities)
      .subspan(token % kBlock * at->experts, at->experts);
}

std::span<const float> TokenMemory::input(int row, uint64_t token) const {
  const Row* at = row_with(row, token, 2);
  if (!at) return {};
  return std::span<const float>(at->blocks[token / kBlock]->inputs).subspan(token % kBlock * at->width, at->width);
}

void TokenMemory::truncate(uint64_t length) {
  for (Row& row : rows_) {
    if (row.holds.size() <= length) continue;
    row.holds.resize(length);
    row.blocks.resize((length + kBlock - 1) / kBlock);
  }
}

uint64_t TokenMemory::bytes() const {
  uint64_t total = 0;
  for (const Row& row : rows_)
    for (const auto& block : row.blocks)
      if (block) total += (block->probabilities.size() + block->inputs.size()) * sizeof(float);
  return total;
}

}  // namespace switchyard

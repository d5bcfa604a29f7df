// See cache.h.
#include "engine/backend/cuda/cache.h"

#include <algorithm>

#include "engine/backend/cuda/tables.h"

namespace switchyard::cuda {

Result<BlockPool::Block> BlockPool::take() {
  if (free_.empty()) {
    constexpr size_t kSlab = size_t(64) << 20;
    const size_t count = std::max<size_t>(1, kSlab / bytes_);
    SY_TRY(Buffer slab, Buffer::make(count * bytes_, Place::kDevice, "keys and values"));
    for (size_t i = count; i > 0; --i) free_.push_back(slab.as<>() + (i - 1) * bytes_);
    slabs_.push_back(std::move(slab));
  }
  unsigned char* const at = free_.back();
  free_.pop_back();
  return Block(at, [pool = shared_from_this()](unsigned char* block) { pool->free_.push_back(block); });
}

int DeviceCache::truncate(int length) {
  length_ = std::clamp(length, 0, length_);
  blocks_.resize(size_t(length_ + kKeyBlock - 1) / kKeyBlock);
  routers_.truncate(uint64_t(length_));
  choices_.truncate(length_);
  return length_;
}

std::unique_ptr<KvCache> DeviceCache::clone() const {
  auto out = std::make_unique<DeviceCache>(native_, capacity_);
  out->pool_ = pool_, out->blocks_ = blocks_, out->length_ = length_;
  out->routers_ = routers_, out->choices_ = choices_;
  return out;
}

Result<void> DeviceCache::extend(Stream& stream, int tokens) {
  if (!table_.bytes()) {
    const size_t blocks = size_t(capacity_ + kKeyBlock - 1) / kKeyBlock;
    SY_TRY(table_, Buffer::make(std::max<size_t>(1, blocks) * sizeof(unsigned char*), Place::kDevice,
                                "the table of keys and values"));
  }
  const size_t partial = size_t(length_) / kKeyBlock, before = blocks_.size();
  if (partial < blocks_.size() && blocks_[partial].use_count() > 1) {
    SY_TRY(const BlockPool::Block own, pool_->take());
    SY_CHECK(copy(stream, own.get(), blocks_[partial].get(), pool_->block_bytes(), "keys and values of a branch"));
    blocks_[partial] = own;
  }
  const size_t needed = size_t(length_ + tokens + kKeyBlock - 1) / kKeyBlock;
  while (blocks_.size() < needed) {
    auto block = pool_->take();
    if (!block) {
      blocks_.resize(before);
      return tl::unexpected(std::move(block).error());
    }
    blocks_.push_back(std::move(*block));
  }
  std::vector<unsigned char*> now;
  for (const BlockPool::Block& block : blocks_) now.push_back(block.get());
  if (now == listed_) return {};
  // The table is read by the launches that follow; the copy has to be done before `listed_` changes again.
  listed_ = std::move(now);
  SY_CHECK(copy(stream, table_.as<>(), listed_.data(), listed_.size() * sizeof(unsigned char*),
                "the table of keys and values"));
  return wait(stream, "the table of keys and values");
}

}  // namespace switchyard::cuda

// Keys and values of one sequence on the device, in blocks of kKeyBlock tokens behind a table that the kernels read.
// Clones share full blocks and copy the last partial one when they write to it. Engine thread.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device.h"

namespace switchyard::cuda {

// Blocks of one model; blocks that are given back are used again. Outlives its caches by shared ownership.
class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  explicit BlockPool(size_t block_bytes) : bytes_(block_bytes) {}
  using Block = std::shared_ptr<unsigned char>;
  Result<Block> take();
  size_t block_bytes() const { return bytes_; }

 private:
  size_t bytes_;
  std::vector<Buffer> slabs_;
  std::vector<unsigned char*> free_;
};

class DeviceCache final : public KvCache {
 public:
  DeviceCache(std::shared_ptr<BlockPool> pool, int capacity) : pool_(std::move(pool)), capacity_(capacity) {}

  int length() const override { return length_; }
  int capacity() const override { return capacity_; }
  int truncate(int length) override;
  std::unique_ptr<KvCache> clone() const override;
  uint64_t bytes() const override { return blocks_.size() * pool_->block_bytes(); }
  std::span<const uint8_t> path() const override { return {}; }

  const BlockPool* pool() const { return pool_.get(); }
  // Makes the blocks of the next tokens writable and their table current. On error the cache is as before.
  Result<void> extend(Stream& stream, int tokens);
  void append(int tokens) { length_ += tokens; }
  // On the device: [blocks].
  unsigned char* const* table() const { return table_.as<unsigned char*>(); }

 private:
  std::shared_ptr<BlockPool> pool_;
  std::vector<BlockPool::Block> blocks_;
  std::vector<unsigned char*> listed_;  // what the table on the device holds
  Buffer table_;
  int capacity_, length_ = 0;
};

}  // namespace switchyard::cuda

// Keys and values of one sequence on the device, in blocks of kKeyBlock tokens behind a table that the kernels read.
// Clones share full blocks and copy the last partial one when they write to it. Engine thread.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device.h"
#include "engine/backend/sequence_choices.h"
#include "engine/routing/token_memory.h"

namespace switchyard::cuda {

// Where a block of tokens holds the keys and values of each sublayer, in each pass of its layer.
struct KeyLayout {
  std::vector<uint8_t> path;              // of Recipe::passes; empty: every layer once
  std::vector<std::vector<size_t>> keys;  // [passes][sublayers], bytes; 0 where the pass does not run or keeps nothing
  size_t block_bytes = 0;
};

// Blocks of one model and layer path; blocks that are given back are used again. Outlives its caches by shared ownership.
class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  explicit BlockPool(KeyLayout layout) : layout_(std::move(layout)), bytes_(std::max<size_t>(1, layout_.block_bytes)) {}
  const KeyLayout& layout() const { return layout_; }
  using Block = std::shared_ptr<unsigned char>;
  Result<Block> take();
  size_t block_bytes() const { return bytes_; }

 private:
  KeyLayout layout_;
  size_t bytes_;
  std::vector<Buffer> slabs_;
  std::vector<unsigned char*> free_;
};

class DeviceCache final : public KvCache {
 public:
  DeviceCache(std::shared_ptr<BlockPool> pool, int capacity)
      : native_(pool), pool_(std::move(pool)), capacity_(capacity) {}

  int length() const override { return length_; }
  int capacity() const override { return capacity_; }
  int truncate(int length) override;
  std::unique_ptr<KvCache> clone() const override;
  uint64_t bytes() const override { return blocks_.size() * pool_->block_bytes() + routers_.bytes(); }
  std::span<const uint8_t> path() const override { return pool_->layout().path; }

  const BlockPool* native() const { return native_.get(); }  // of one pass through every layer
  const KeyLayout& layout() const { return pool_->layout(); }
  // Another path; the cache is empty.
  void lay_out(std::shared_ptr<BlockPool> pool) { blocks_.clear(), pool_ = std::move(pool); }
  // What routers left for later tokens, and what schemes chose once for the sequence.
  TokenMemory& routers() { return routers_; }
  SequenceChoices& choices() { return choices_; }
  // Makes the blocks of the next tokens writable and their table current. On error the cache is as before.
  Result<void> extend(Stream& stream, int tokens);
  void append(int tokens) { length_ += tokens; }
  // On the device: [blocks].
  unsigned char* const* table() const { return table_.as<unsigned char*>(); }

 private:
  std::shared_ptr<BlockPool> native_, pool_;
  TokenMemory routers_;
  SequenceChoices choices_;
  std::vector<BlockPool::Block> blocks_;
  std::vector<unsigned char*> listed_;  // what the table on the device holds
  Buffer table_;
  int capacity_, length_ = 0;
};

}  // namespace switchyard::cuda

// Keys and values of one sequence in blocks of 64 tokens, taken as the sequence grows. Clones share
// full blocks and copy one when they write to it, so a branch costs next to nothing.
// Owned by the engine thread; while forward() runs, the pool reads blocks and writes distinct tokens.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/sequence_choices.h"
#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/model.h"
#include "engine/routing/token_memory.h"

namespace switchyard::cpu {

// Where each attention sublayer's keys [kv_heads][kKeyBlock / kKeyGroup][head_dim][kKeyGroup] and values
// [kv_heads][kKeyBlock][value_dim] lie in a block. value_dim: head_dim rounded up to kKeyGroup; of latents,
// whose keys hold the values, the width of an attention state, and no values are stored.
struct KvLayout {
  struct Part {
    int kv_heads = 0, head_dim = 0, value_dim = 0;
    bool stores_values = true;
    size_t keys = 0, values = 0;  // offsets in floats
  };
  // passes: of each shape's layer, 0: it keeps nothing; empty: one each.
  explicit KvLayout(std::span<const KeyShape> shapes, std::span<const int> passes = {});
  int part(int cache, int pass) const { return pass * caches + cache; }

  int caches = 0;           // sublayers that keep keys
  std::vector<Part> parts;  // [passes][caches]
  size_t block_floats = 0;
};

class BlockCache final : public KvCache {
 public:
  BlockCache(std::shared_ptr<const KvLayout> layout, int capacity)
      : native_(layout), layout_(std::move(layout)), capacity_(capacity) {}

  int length() const override { return length_; }
  int capacity() const override { return capacity_; }
  int truncate(int length) override;
  std::unique_ptr<KvCache> clone() const override { return std::make_unique<BlockCache>(*this); }
  uint64_t bytes() const override { return blocks_.size() * layout_->block_floats * sizeof(float) + routers_.bytes(); }

  std::span<const uint8_t> path() const override { return path_; }

  const KvLayout* native() const { return native_.get(); }  // that of one pass through every layer
  const KvLayout* layout() const { return layout_.get(); }
  SequenceChoices& choices() { return choices_; }
  // Another path and its layout; the cache is empty.
  void lay_out(std::shared_ptr<const KvLayout> layout, std::vector<uint8_t> path);
  // Makes the blocks of the next `tokens` tokens writable. Throws std::bad_alloc, the cache as before.
  void extend(int tokens);
  // The tokens written since extend() now belong to the sequence.
  void append(int tokens) { length_ += tokens; }

  // key, value: [kv_heads * head_dim] of the token at `position`, which extend() made writable; no value
  // where the part stores none.
  void write(int part, int position, const float* key, const float* value);
  const float* keys(int part, int block, int kv_head) const;
  const float* values(int part, int block, int kv_head) const;

  // What the routers left for later tokens.
  TokenMemory& routers() { return routers_; }

 private:
  std::shared_ptr<const KvLayout> native_, layout_;
  std::vector<uint8_t> path_;
  std::vector<std::shared_ptr<AlignedFloats>> blocks_;
  SequenceChoices choices_;
  int capacity_;
  int length_ = 0;
  TokenMemory routers_;
};

}  // namespace switchyard::cpu

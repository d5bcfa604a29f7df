// See kv_cache.h.
#include "engine/backend/cpu/kv_cache.h"

#include <algorithm>

namespace switchyard::cpu {

KvLayout::KvLayout(std::span<const KeyShape> shapes, std::span<const int> passes) : caches(int(shapes.size())) {
  const int most = passes.empty() ? 1 : *std::max_element(passes.begin(), passes.end());
  for (int pass = 0; pass < most; ++pass)
    for (size_t i = 0; i < shapes.size(); ++i) {
      const KeyShape& shape = shapes[i];
      Part part{.kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .stores_values = shape.latent == 0};
      part.value_dim = (shape.value_dim() + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
      part.keys = part.values = block_floats;
      if (passes.empty() || pass < passes[i]) {
        block_floats += size_t(kKeyBlock) * part.kv_heads * part.head_dim;
        part.values = block_floats;
        if (part.stores_values) block_floats += size_t(kKeyBlock) * part.kv_heads * part.value_dim;
      }
      parts.push_back(part);
    }
}

void BlockCache::lay_out(std::shared_ptr<const KvLayout> layout, std::vector<uint8_t> path) {
  blocks_.clear();
  layout_ = std::move(layout);
  path_ = std::move(path);
}

int BlockCache::truncate(int length) {
  length_ = std::clamp(length, 0, length_);
  choices_.truncate(length_);
  blocks_.resize(size_t(length_ + kKeyBlock - 1) / kKeyBlock);
  routers_.truncate(uint64_t(length_));
  return length_;
}

void BlockCache::extend(int tokens) {
  const size_t needed = size_t(length_ + tokens + kKeyBlock - 1) / kKeyBlock;
  blocks_.reserve(needed);
  const size_t partial = size_t(length_) / kKeyBlock;
  if (partial < blocks_.size() && blocks_[partial].use_count() > 1) {
    auto own = std::make_shared<AlignedFloats>(layout_->block_floats);
    std::copy_n(blocks_[partial]->data(), layout_->block_floats, own->data());
    blocks_[partial] = std::move(own);
  }
  while (blocks_.size() < needed) blocks_.push_back(std::make_shared<AlignedFloats>(layout_->block_floats));
}

void BlockCache::write(int part, int position, const float* key, const float* value) {
  const KvLayout::Part& at = layout_->parts[part];
  const int slot = position % kKeyBlock, group = slot / kKeyGroup, lane = slot % kKeyGroup;
  float* block = blocks_[position / kKeyBlock]->data();
  for (int head = 0; head < at.kv_heads; ++head) {
    float* keys = block + at.keys + (size_t(head) * (kKeyBlock / kKeyGroup) + group) * at.head_dim * kKeyGroup + lane;
    for (int d = 0; d < at.head_dim; ++d) keys[d * kKeyGroup] = key[head * at.head_dim + d];
    if (!at.stores_values) continue;
    float* values = block + at.values + (size_t(head) * kKeyBlock + slot) * at.value_dim;
    std::copy_n(value + head * at.head_dim, at.head_dim, values);
  }
}

const float* BlockCache::keys(int part, int block, int kv_head) const {
  const KvLayout::Part& at = layout_->parts[part];
  return blocks_[block]->data() + at.keys + size_t(kv_head) * kKeyBlock * at.head_dim;
}

const float* BlockCache::values(int part, int block, int kv_head) const {
  const KvLayout::Part& at = layout_->parts[part];
  return blocks_[block]->data() + at.values + size_t(kv_head) * kKeyBlock * at.value_dim;
}

}  // namespace switchyard::cpu

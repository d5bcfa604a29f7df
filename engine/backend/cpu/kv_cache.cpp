// See kv_cache.h.
#include "engine/backend/cpu/kv_cache.h"

#include <algorithm>

namespace switchyard::cpu {

KvLayout::KvLayout(const Model& model) {
  for (const Layer& layer : model.layers) {
    const Attention& attention = layer.attention;
    Part part{attention.kv_heads, attention.head_dim, (attention.head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup};
    part.keys = block_floats;
    block_floats += size_t(kKeyBlock) * part.kv_heads * part.head_dim;
    part.values = block_floats;
    block_floats += size_t(kKeyBlock) * part.kv_heads * part.value_dim;
    layers.push_back(part);
  }
}

void BlockCache::truncate(int length) {
  length_ = std::clamp(length, 0, length_);
  blocks_.resize(size_t(length_ + kKeyBlock - 1) / kKeyBlock);
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

void BlockCache::write(int layer, int position, const float* key, const float* value) {
  const KvLayout::Part& part = layout_->layers[layer];
  const int slot = position % kKeyBlock, group = slot / kKeyGroup, lane = slot % kKeyGroup;
  float* block = blocks_[position / kKeyBlock]->data();
  for (int head = 0; head < part.kv_heads; ++head) {
    float* keys =
        block + part.keys + (size_t(head) * (kKeyBlock / kKeyGroup) + group) * part.head_dim * kKeyGroup + lane;
    for (int d = 0; d < part.head_dim; ++d) keys[d * kKeyGroup] = key[head * part.head_dim + d];
    float* values = block + part.values + (size_t(head) * kKeyBlock + slot) * part.value_dim;
    std::copy_n(value + head * part.head_dim, part.head_dim, values);
  }
}

const float* BlockCache::keys(int layer, int block, int kv_head) const {
  const KvLayout::Part& part = layout_->layers[layer];
  return blocks_[block]->data() + part.keys + size_t(kv_head) * kKeyBlock * part.head_dim;
}

const float* BlockCache::values(int layer, int block, int kv_head) const {
  const KvLayout::Part& part = layout_->layers[layer];
  return blocks_[block]->data() + part.values + size_t(kv_head) * kKeyBlock * part.value_dim;
}

}  // namespace switchyard::cpu

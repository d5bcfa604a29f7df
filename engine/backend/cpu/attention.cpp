// Attention of a chunk: projections, query and key norms, rope, key and value store, online softmax.
// See executor.h.
//
// Keys are taken in spans of kSpanBlocks blocks that begin at fixed positions. A span's state starts
// empty and spans are merged in order, whoever computed them: so one token may be shared out over its
// spans and a prompt over its tokens, with equal results bit for bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/backend/cpu/executor.h"

namespace switchyard::cpu {
namespace {

constexpr int kSpanBlocks = 8;
constexpr int kSpanKeys = kSpanBlocks * kKeyBlock;

void clear(const AttentionState& state, int count, int value_dim) {
  std::fill_n(state.largest, count, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum, count, 0.0f);
  std::fill_n(state.values, size_t(count) * value_dim, 0.0f);
}

// Adds the state of a later span to `total`.
void merge(const AttentionState& total, const AttentionState& span, int count, int value_dim) {
  for (int i = 0; i < count; ++i) {
    if (span.sum[i] == 0) continue;  // nothing visible there
    const float largest = std::max(total.largest[i], span.largest[i]);
    const float before = std::exp(total.largest[i] - largest), added = std::exp(span.largest[i] - largest);
    total.largest[i] = largest;
    total.sum[i] = total.sum[i] * before + span.sum[i] * added;
    float* values = total.values + size_t(i) * value_dim;
    const float* more = span.values + size_t(i) * value_dim;
    for (int d = 0; d < value_dim; ++d) values[d] = values[d] * before + more[d] * added;
  }
}

}  // namespace

AttentionState Executor::StateSpace::shape(int queries, int value_dim) {
  largest.reserve(queries);
  sum.reserve(queries);
  values.reserve(size_t(queries) * value_dim);
  return {largest.data(), sum.data(), values.data()};
}

void Executor::attention(int layer) {
  const Layer& at = model_.layers[layer];
  const Attention& spec = at.attention;
  normalise(at.attention_norm, hidden_, normed_);
  for (int token = 0; token < count_; ++token) {
    q_out_[token] = qkv_[token];
    k_out_[token] = q_out_[token] + spec.query_cols();
    v_out_[token] = k_out_[token] + spec.key_cols();
  }
  const std::array projections{Product{&spec.q, rows_of(normed_in_, q_out_, false)},
                               Product{&spec.k, rows_of(normed_in_, k_out_, false)},
                               Product{&spec.v, rows_of(normed_in_, v_out_, false)}};
  multiply(projections);
  for_tokens((spec.query_cols() + 2 * spec.key_cols()) * int64_t(sizeof(float)),
             [&](int token, int) { finish_qkv(layer, token); });
  attend(layer);
  if (!spec.o_bias.empty())
    for (int token = 0; token < count_; ++token)
      for (int i = 0; i < model_.hidden; ++i) hidden_[token][i] += spec.o_bias[i];
  const std::array output{Product{&spec.o, rows_of(mixed_in_, hidden_out_, true)}};
  multiply(output);
}

// Bias, norm, clip, rope of one token, in this order (families.md 1.2, 1.4), then into the cache.
void Executor::finish_qkv(int layer, int token) {
  const Attention& spec = model_.layers[layer].attention;
  const auto finish = [&](float* x, int64_t n, const std::vector<float>& bias, const Norm* norm, int heads,
                          bool with_rope) {
    for (size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
    const int64_t normed = spec.qk_norm == QkNorm::kFullVector ? n : spec.head_dim;
    for (int64_t at = 0; norm && at < n; at += normed) apply_norm(*norm, x + at, x + at, normed);
    if (spec.clip > 0)
      for (int64_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], -spec.clip, spec.clip);
    if (with_rope && spec.rope >= 0) rotate(spec.rope, token, x, heads, spec.head_dim);
  };
  const bool norm = spec.qk_norm != QkNorm::kNone;
  finish(q_out_[token], spec.query_cols(), spec.q_bias, norm ? &spec.q_norm : nullptr, spec.heads, true);
  finish(k_out_[token], spec.key_cols(), spec.k_bias, norm ? &spec.k_norm : nullptr, spec.kv_heads, true);
  finish(v_out_[token], spec.key_cols(), spec.v_bias, nullptr, spec.kv_heads, false);
  chunk_->cache->write(layer, position_ + token, k_out_[token], v_out_[token]);
}

// Pairs (i, i + dims / 2), or (2i, 2i + 1) where interleaved; the rest of a head passes through.
void Executor::rotate(int rope, int token, float* heads, int count, int head_dim) const {
  const bool half = model_.ropes[rope].kind == RopeKind::kHalf;
  const int pairs = model_.ropes[rope].dims / 2, first = half ? 1 : 2, apart = half ? pairs : 1;
  const float* cosine = cosines_[rope].data() + size_t(token) * pairs;
  const float* sine = sines_[rope].data() + size_t(token) * pairs;
  for (int head = 0; head < count; ++head, heads += head_dim)
    for (int i = 0; i < pairs; ++i) {
      const float a = heads[i * first], b = heads[i * first + apart];
      heads[i * first] = a * cosine[i] - b * sine[i];
      heads[i * first + apart] = b * cosine[i] + a * sine[i];
    }
}

void Executor::attend(int layer) {
  const Attention& spec = model_.layers[layer].attention;
  head_groups_.clear();
  const int shared = spec.heads / spec.kv_heads;
  for (int kv_head = 0; kv_head < spec.kv_heads; ++kv_head)
    for (int head = 0; head < shared; head += kMaxQueries)
      head_groups_.push_back({kv_head, kv_head * shared + head, std::min(kMaxQueries, shared - head)});
  if (count_ == 1) return attend_one_token(layer);

  const int tile = std::max(1, kMaxQueries / std::min(shared, kMaxQueries));  // tokens
  const int tiles = (count_ + tile - 1) / tile, groups = static_cast<int>(head_groups_.size());
  const int64_t key_bytes = int64_t(position_ + count_) * spec.key_cols() * 2 * int64_t(sizeof(float));
  const auto one = [&](int item, int worker) {
    const int first = item / groups * tile;
    attend_tokens(layer, head_groups_[item % groups], first, std::min(tile, count_ - first), workers_[worker]);
  };
  if (parts_for(key_bytes * count_ / 8) == 1) {
    for (int item = 0; item < tiles * groups; ++item) one(item, 0);
  } else {
    pool_.run(tiles * groups, one);
  }
}

void Executor::attend_one_token(int layer) {
  const Attention& spec = model_.layers[layer].attention;
  const int value_dim = chunk_->cache->layout()->layers[layer].value_dim;
  const int first_span = spec.window > 0 ? std::max(0, position_ - spec.window + 1) / kSpanKeys : 0;
  const int spans = position_ / kSpanKeys - first_span + 1, items = spans * static_cast<int>(head_groups_.size());
  if (spans_.size() < size_t(items)) spans_.resize(items);
  const auto state = [&](int item) { return spans_[item].shape(head_groups_[item / spans].heads, value_dim); };
  const int64_t keys = std::min<int64_t>(position_ + 1, int64_t(spans) * kSpanKeys);
  const int parts = std::min(items, parts_for(keys * spec.key_cols() * 2 * int64_t(sizeof(float))));
  pool_.run(parts, [&](int part, int worker) {
    const RowRange own = split_rows(items, parts, part);
    for (int item = int(own.begin); item < int(own.end); ++item)
      attend_span(layer, head_groups_[item / spans], 0, 1, first_span + item % spans, workers_[worker].scores.data(),
                  state(item));
  });
  for (size_t group = 0; group < head_groups_.size(); ++group) {
    const int heads = head_groups_[group].heads;
    const AttentionState total = workers_[0].total.shape(heads, value_dim);
    clear(total, heads, value_dim);
    for (int span = 0; span < spans; ++span) merge(total, state(int(group) * spans + span), heads, value_dim);
    finish_attention(layer, head_groups_[group], 0, 1, total);
  }
}

void Executor::attend_tokens(int layer, const HeadGroup& group, int first, int count, WorkerSpace& space) {
  const int window = model_.layers[layer].attention.window;
  const int value_dim = chunk_->cache->layout()->layers[layer].value_dim, queries = group.heads * count;
  const AttentionState total = space.total.shape(queries, value_dim);
  const AttentionState part = space.span.shape(queries, value_dim);
  clear(total, queries, value_dim);
  const int first_span = window > 0 ? std::max(0, position_ + first - window + 1) / kSpanKeys : 0;
  for (int span = first_span; span <= (position_ + first + count - 1) / kSpanKeys; ++span) {
    attend_span(layer, group, first, count, span, space.scores.data(), part);
    merge(total, part, queries, value_dim);
  }
  finish_attention(layer, group, first, count, total);
}

// Queries are token-major: query i is head i % heads of token first + i / heads.
void Executor::attend_span(int layer, const HeadGroup& group, int first, int count, int span, float* scores,
                           const AttentionState& state) {
  const Attention& spec = model_.layers[layer].attention;
  const int value_dim = chunk_->cache->layout()->layers[layer].value_dim, queries = group.heads * count;
  std::array<const float*, kMaxQueries> q;
  std::array<int, kMaxQueries> from, to, visible_from;
  for (int i = 0; i < queries; ++i) {
    const int token = first + i / group.heads;
    q[i] = q_out_[token] + int64_t(group.first_head + i % group.heads) * spec.head_dim;
    visible_from[i] = spec.window > 0 ? std::max(0, position_ + token - spec.window + 1) : 0;
  }
  clear(state, queries, value_dim);
  const int last_block = std::min((position_ + first + count - 1) / kKeyBlock, (span + 1) * kSpanBlocks - 1);
  for (int block = std::max(span * kSpanBlocks, visible_from[0] / kKeyBlock); block <= last_block; ++block) {
    for (int i = 0; i < queries; ++i) {
      from[i] = std::clamp(visible_from[i] - block * kKeyBlock, 0, kKeyBlock);
      to[i] = std::clamp(position_ + first + i / group.heads + 1 - block * kKeyBlock, 0, kKeyBlock);
    }
    kernels_.attend({queries, q.data(), from.data(), to.data(), spec.scale},
                    chunk_->cache->keys(layer, block, group.kv_head),
                    chunk_->cache->values(layer, block, group.kv_head), spec.head_dim, state, scores);
  }
}

void Executor::finish_attention(int layer, const HeadGroup& group, int first, int count, const AttentionState& state) {
  const int head_dim = model_.layers[layer].attention.head_dim;
  const int value_dim = chunk_->cache->layout()->layers[layer].value_dim;
  for (int i = 0; i < group.heads * count; ++i) {
    float* out = mixed_[first + i / group.heads] + int64_t(group.first_head + i % group.heads) * head_dim;
    const float* values = state.values + size_t(i) * value_dim;
    for (int d = 0; d < head_dim; ++d) out[d] = values[d] / state.sum[i];
  }
}

}  // namespace switchyard::cpu

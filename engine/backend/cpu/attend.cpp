// See attend.h.
#include "engine/backend/cpu/attend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

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

AttentionState Attend::StateSpace::shape(int queries, int value_dim) {
  largest.reserve(queries);
  sum.reserve(queries);
  values.reserve(size_t(queries) * value_dim);
  return {largest.data(), sum.data(), values.data()};
}

void Attend::run(const Step& step, const KeyShape& shape, float* const* queries, float* const* out) {
  const bool asked = step.attention && step.attention->window > 0;
  if (asked) {
    largest_.resize(size_t(step.count) * size_t(shape.heads));
    sum_.resize(largest_.size());
  }
  attend(step, shape, queries, out);
  if (!asked) return;
  step.attention->shares.shape(step.count, step.attention->window);
  step.for_tokens(int64_t(step.attention->window) * shape.query_cols() * int64_t(sizeof(float)), [&](int token, int) { share_out(token); });
}

void Attend::attend(const Step& step, const KeyShape& shape, float* const* queries, float* const* out) {
  step_ = &step;
  shape_ = &shape;
  queries_ = queries;
  out_ = out;
  state_dim_ = step.chunk->cache->layout()->parts[step.part(shape)].value_dim;
  workers_.resize(step.pool.threads());
  for (WorkerSpace& space : workers_) space.scores.reserve(size_t(kMaxQueries) * kKeyBlock);
  groups_.clear();
  const int shared = shape.heads / shape.kv_heads;
  for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head)
    for (int head = 0; head < shared; head += kMaxQueries)
      groups_.push_back({kv_head, kv_head * shared + head, std::min(kMaxQueries, shared - head)});
  if (step.count == 1) return one_token();

  const int tile = std::max(1, kMaxQueries / std::min(shared, kMaxQueries));  // tokens
  const int tiles = (step.count + tile - 1) / tile, groups = static_cast<int>(groups_.size());
  const int64_t key_bytes = int64_t(step.position + step.count) * shape.key_cols() * 2 * int64_t(sizeof(float));
  const auto one = [&](int item, int worker) {
    const int first = item / groups * tile;
    some_tokens(groups_[item % groups], {first, std::min(tile, step.count - first)}, workers_[worker]);
  };
  if (step.parts_for(key_bytes * step.count / 8) == 1) {
    for (int item = 0; item < tiles * groups; ++item) one(item, 0);
  } else {
    step.pool.run(tiles * groups, one);
  }
}

void Attend::one_token() {
  const int position = step_->position, first_span = shape_->first_visible(position) / kSpanKeys;
  const int spans = position / kSpanKeys - first_span + 1, items = spans * static_cast<int>(groups_.size());
  if (spans_.size() < size_t(items)) spans_.resize(items);
  const auto state = [&](int item) { return spans_[item].shape(groups_[item / spans].heads, state_dim_); };
  const int64_t keys = std::min<int64_t>(position + 1, int64_t(spans) * kSpanKeys);
  const int parts = std::min(items, step_->parts_for(keys * shape_->key_cols() * 2 * int64_t(sizeof(float))));
  step_->pool.run(parts, [&](int part, int worker) {
    const RowRange own = split_rows(items, parts, part);
    for (int item = int(own.begin); item < int(own.end); ++item)
      one_span(groups_[item / spans], {0, 1}, first_span + item % spans, workers_[worker].scores.data(), state(item));
  });
  for (size_t group = 0; group < groups_.size(); ++group) {
    const int heads = groups_[group].heads;
    const AttentionState total = workers_[0].total.shape(heads, state_dim_);
    clear(total, heads, state_dim_);
    for (int span = 0; span < spans; ++span) merge(total, state(int(group) * spans + span), heads, state_dim_);
    finish(groups_[group], {0, 1}, total);
  }
}

void Attend::some_tokens(const HeadGroup& group, Tokens tokens, WorkerSpace& space) {
  const int queries = group.heads * tokens.count, first = step_->position + tokens.first;
  const AttentionState total = space.total.shape(queries, state_dim_);
  const AttentionState part = space.span.shape(queries, state_dim_);
  clear(total, queries, state_dim_);
  for (int span = shape_->first_visible(first) / kSpanKeys; span <= (first + tokens.count - 1) / kSpanKeys; ++span) {
    one_span(group, tokens, span, space.scores.data(), part);
    merge(total, part, queries, state_dim_);
  }
  finish(group, tokens, total);
}

// Queries are token-major: query i is head i % heads of token first + i / heads.
void Attend::one_span(const HeadGroup& group, Tokens tokens, int span, float* scores, const AttentionState& state) {
  const int queries = group.heads * tokens.count, first = step_->position + tokens.first;
  std::array<const float*, kMaxQueries> q;
  std::array<int, kMaxQueries> from, to, visible_from;
  for (int i = 0; i < queries; ++i) {
    const int token = i / group.heads;
    q[i] = queries_[tokens.first + token] + int64_t(group.first_head + i % group.heads) * shape_->head_dim;
    visible_from[i] = shape_->first_visible(first + token);
  }
  clear(state, queries, state_dim_);
  const BlockCache& cache = *step_->chunk->cache;
  const int part = step_->part(*shape_);
  const int last_block = std::min((first + tokens.count - 1) / kKeyBlock, (span + 1) * kSpanBlocks - 1);
  for (int block = std::max(span * kSpanBlocks, visible_from[0] / kKeyBlock); block <= last_block; ++block) {
    for (int i = 0; i < queries; ++i) {
      from[i] = std::clamp(visible_from[i] - block * kKeyBlock, 0, kKeyBlock);
      to[i] = std::clamp(first + i / group.heads + 1 - block * kKeyBlock, 0, kKeyBlock);
    }
    const Queries all{queries, q.data(), from.data(), to.data(), shape_->scale};
    const float* keys = cache.keys(part, block, group.kv_head);
    if (shape_->latent > 0)
      step_->kernels.attend_latent(all, keys, shape_->head_dim, shape_->latent, state, scores);
    else
      step_->kernels.attend(all, keys, cache.values(part, block, group.kv_head), shape_->head_dim, state,
                            scores);
  }
}

// A sink is one more logit of the softmax, without a value.
void Attend::finish(const HeadGroup& group, Tokens tokens, const AttentionState& state) {
  const int value_dim = shape_->value_dim();
  for (int i = 0; i < group.heads * tokens.count; ++i) {
    const int head = group.first_head + i % group.heads;
    float scale = 1, sum = state.sum[i];
    if (!shape_->sinks.empty()) {
      const float sink = shape_->sinks[head], largest = std::max(state.largest[i], sink);
      scale = std::exp(state.largest[i] - largest);
      sum = sum * scale + std::exp(sink - largest);
    }
    if (step_->attention && step_->attention->window > 0) {
      const size_t at = size_t(tokens.first + i / group.heads) * size_t(shape_->heads) + size_t(head);
      largest_[at] = shape_->sinks.empty() ? state.largest[i] : std::max(state.largest[i], shape_->sinks[head]);
      sum_[at] = sum;
    }
    float* out = out_[tokens.first + i / group.heads] + int64_t(head) * value_dim;
    const float* values = state.values + size_t(i) * state_dim_;
    for (int d = 0; d < value_dim; ++d) out[d] = values[d] * scale / sum;
  }
}

void Attend::share_out(int token) const {
  AttentionRows& rows = *step_->attention;
  float* out = rows.shares[token];
  std::fill_n(out, rows.window, 0.0f);
  for (int head = 0; head < shape_->heads; ++head) add_shares(token, head, out);
  for (int o = 0; o < rows.window; ++o) out[o] /= float(shape_->heads);
}

// exp(q.k - largest) / sum of one head onto the visible keys of the window. Scores are made anew: the kernels keep none.
void Attend::add_shares(int token, int head, float* out) const {
  const int position = step_->position + token, dim = shape_->head_dim;
  const int first = std::max(shape_->first_visible(position), position - step_->attention->window + 1);
  const float* query = queries_[token] + int64_t(head) * dim;
  const size_t at = size_t(token) * size_t(shape_->heads) + size_t(head);
  const int kv_head = head / (shape_->heads / shape_->kv_heads);
  for (int group = first / kKeyGroup; group <= position / kKeyGroup; ++group) {
    const int in_block = group % (kKeyBlock / kKeyGroup);
    const float* keys = step_->chunk->cache->keys(step_->part(*shape_), group * kKeyGroup / kKeyBlock, kv_head) +
                        int64_t(in_block) * dim * kKeyGroup;
    std::array<float, kKeyGroup> scores{};
    for (int d = 0; d < dim; ++d)
      for (int lane = 0; lane < kKeyGroup; ++lane) scores[size_t(lane)] += query[d] * keys[d * kKeyGroup + lane];
    for (int lane = 0; lane < kKeyGroup; ++lane) {
      const int key = group * kKeyGroup + lane;
      if (key < first || key > position) continue;
      out[position - key] += std::exp(scores[size_t(lane)] * shape_->scale - largest_[at]) / sum_[at];
    }
  }
}

}  // namespace switchyard::cpu

// Attention over latents. See attention.h.
#include <algorithm>
#include <array>

#include "engine/backend/cpu/adapters.h"
#include "engine/backend/cpu/attention.h"
#include "engine/model/linears.h"

namespace switchyard::cpu {
void LatentAttentionRun::run(const Step& step, const LatentAttention& spec, const float* const* in, const Sum& sum) {
  const int count = step.count, heads = spec.keys.heads, rank = spec.keys.latent,
            query_dim = spec.nope_dim + spec.rope_dim;
  project(step, spec, in);

  // Heads are shared out; each multiplies its own part of every token.
  shape_rows(count, spec.keys.query_cols(), absorbed_, absorbed_out_);
  shape_rows(count, spec.keys.value_cols(), mixed_, mixed_out_);
  shape_rows(count, int64_t(heads) * spec.value_dim, values_, values_out_);
  head_in_.resize(size_t(step.pool.threads()) * count);
  head_out_.resize(size_t(step.pool.threads()) * count);
  const auto each_head = [&](const auto& matrix_of, int64_t in_dim, const Rows& from, int64_t out_dim, Rows& to) {
    const int parts = std::min(heads, step.parts_for(stored_size(spec.absorb) * ((count + 1) / 2)));
    const Matrix any = matrix_of(0);
    step.make_room(any.type, count, any.cols);
    step.pool.run(parts, [&](int part, int worker) {
      const float** x = head_in_.data() + size_t(worker) * count;
      float** out = head_out_.data() + size_t(worker) * count;
      const RowRange own = split_rows(heads, parts, part);
      for (int head = int(own.begin); head < int(own.end); ++head) {
        for (int token = 0; token < count; ++token) {
          x[token] = from[token] + head * in_dim;
          out[token] = to[token] + head * out_dim;
        }
        const Matrix matrix = matrix_of(head);
        step.dot_rows(matrix, 0, matrix.rows, {count, x, out}, worker);
      }
    });
  };
  each_head([&](int head) { return rows_of(spec.absorb, int64_t(head) * rank, rank); }, query_dim, query_,
            spec.keys.head_dim, absorbed_);
  for (int token = 0; token < count; ++token)
    for (int head = 0; head < heads; ++head)
      std::copy_n(query_[token] + int64_t(head) * query_dim + spec.nope_dim, spec.rope_dim,
                  absorbed_[token] + int64_t(head) * spec.keys.head_dim + rank);
  attend_.run(step, spec.keys, absorbed_out_.data(), mixed_out_.data());
  const int64_t kv_rows = spec.nope_dim + spec.value_dim;
  each_head([&](int head) { return rows_of(spec.kv_b, head * kv_rows + spec.nope_dim, spec.value_dim); }, rank, mixed_,
            spec.value_dim, values_);
  step.add_bias(spec.o_bias, sum);
  step.adapters->multiply(step, spec.o, spec.place + kPlaceLatentO, values_out_.data(), sum);
}

// Queries with their rope slices turned; the chunk's keys in the cache.
void LatentAttentionRun::project(const Step& step, const LatentAttention& spec, const float* const* in) {
  const int count = step.count;
  const bool low_rank = spec.query_rank > 0;
  shape_rows(count, std::max(spec.query_rank, 1), query_low_, query_low_out_);
  shape_rows(count, int64_t(spec.keys.heads) * (spec.nope_dim + spec.rope_dim), query_, query_out_);
  shape_rows(count, spec.keys.head_dim, key_, key_out_);
  const std::array first{Product{&spec.kv_a, {count, in, key_out_.data(), nullptr}},
                         low_rank ? Product{&spec.q_a, {count, in, query_low_out_.data(), nullptr}}
                                  : Product{&spec.q, {count, in, query_out_.data(), nullptr}}};
  step.multiply(first);
  step.adapters->complete(step, spec.place + kPlaceKvA, in, key_out_.data());
  if (low_rank) step.adapters->complete(step, spec.place + kPlaceQA, in, query_low_out_.data());
  step.for_tokens((spec.keys.head_dim + spec.query_rank) * int64_t(sizeof(float)),
                  [&](int token, int) { finish_latent(step, spec, token); });
  if (low_rank) {
    const std::array second{Product{&spec.q, {count, query_low_out_.data(), query_out_.data(), nullptr}}};
    step.multiply(second);
  }
  const float* const* query_in = low_rank ? query_low_out_.data() : in;
  step.adapters->complete(step, spec.place + kPlaceLatentQ, query_in, query_out_.data());
  step.for_tokens(int64_t(spec.keys.heads) * (spec.nope_dim + spec.rope_dim) * int64_t(sizeof(float)),
                  [&](int token, int) { finish_query(step, spec, token); });
}

void LatentAttentionRun::finish_latent(const Step& step, const LatentAttention& spec, int token) const {
  const auto biased = [](float* x, const std::vector<float>& bias) {
    for (size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
  };
  float* key = key_out_[token];
  biased(key, spec.kv_a_bias);
  step.normalise(spec.kv_a_norm, key, key, spec.keys.latent);
  if (spec.latent_scale != 1)
    for (int i = 0; i < spec.keys.latent; ++i) key[i] *= spec.latent_scale;
  step.rotations.rotate(spec.rope, token, key + spec.keys.latent, 1, spec.rope_dim);
  step.chunk->cache->write(step.part(spec.keys), step.position + token, key, nullptr);
  if (spec.query_rank == 0) return;
  biased(query_low_out_[token], spec.q_a_bias);
  step.normalise(spec.q_a_norm, query_low_out_[token], query_low_out_[token], spec.query_rank);
}

void LatentAttentionRun::finish_query(const Step& step, const LatentAttention& spec, int token) const {
  const int query_dim = spec.nope_dim + spec.rope_dim;
  float* query = query_out_[token];
  if (spec.q_scale != 1)
    for (int64_t i = 0; i < int64_t(spec.keys.heads) * query_dim; ++i) query[i] *= spec.q_scale;
  step.rotations.rotate(spec.rope, token, query + spec.nope_dim, spec.keys.heads, query_dim);
}

}  // namespace switchyard::cpu

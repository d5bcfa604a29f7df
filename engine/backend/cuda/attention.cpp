// Attention sublayers of a step: queries, keys and values, then what queries take from the cache. See executor.h.
#include "engine/backend/cuda/executor.h"

namespace switchyard::cuda {
namespace {

// Where a pass keeps its keys.
KeyPlace place_of(const KeyPlace& first, const Visit& visit) {
  KeyPlace place = first;
  place.keys = visit.keys, place.values = visit.keys + (first.values - first.keys);
  return place;
}

}  // namespace

void Executor::attend(Stream& stream, const StepShape& shape, const Visit& visit, const KeyPlace& place, int heads,
                      float scale, int window, int chunk, const float* sinks, const float* queries) {
  const AttendJob job{.queries = queries,
                      .out = mixed_.as<float>(),
                      .heads = heads,
                      .place = place,
                      .scale = scale,
                      .window = window,
                      .chunk = chunk,
                      .sinks = sinks,
                      .partial = partial_.as<float>(),
                      .arrived = counters_.as<unsigned>() + 1};
  launch_attend(stream, state_.as<StepState>(), job, shape.tokens == 1 ? splits_ : 1, shape.tokens);
  if (visit.window > 0) launch_attend_shares(stream, state_.as<StepState>(), job, visit.window, shares(), shape.tokens);
}

void Executor::run(Stream& stream, const StepShape& shape, const Visit& visit, const AttentionOnDevice& op) {
  const SublayerOnDevice& sublayer = model_.sublayers[size_t(visit.sublayer)];
  const KeyPlace place = place_of(op.place, visit);
  float* const projected = projected_.as<float>();
  const int query_cols = op.heads * op.place.head_dim, key_cols = op.place.kv_heads * op.place.head_dim;
  if (shape.tokens == 1) {
    launch_project(stream, {.in = hidden_.as<float>(),
                            .cols = model_.hidden,
                            .norm = sublayer.norm,
                            .parts = {op.q, op.k, op.v},
                            .bias = {op.q_bias, op.k_bias, op.v_bias},
                            .count = 3,
                            .out = projected});
  } else {
    launch_norm_rows(stream, hidden_.as<float>(), sublayer.norm, model_.hidden, normed_.as<float>(), shape.tokens);
    multiply(stream, shape.tokens, normed_.as<float>(), op.q, op.q_bias, projected, op.step(), 0);
    multiply(stream, shape.tokens, normed_.as<float>(), op.k, op.k_bias, projected, op.step(), query_cols);
    multiply(stream, shape.tokens, normed_.as<float>(), op.v, op.v_bias, projected, op.step(), query_cols + key_cols);
  }
  launch_finish_heads(stream, state_.as<StepState>(),
                      {.qkv = projected,
                       .step = op.step(),
                       .queries = queries_.as<float>(),
                       .heads = op.heads,
                       .place = place,
                       .qk_norm = op.qk_norm,
                       .query_norm = op.q_norm,
                       .key_norm = op.k_norm,
                       .clip = op.clip,
                       .rope = rope(op.rope),
                       .temperature_floor = op.temperature_floor,
                       .temperature_scale = op.temperature_scale},
                      shape.tokens);
  attend(stream, shape, visit, place, op.heads, op.scale, op.window, op.chunk, op.sinks, queries_.as<float>());
  add_output(stream, shape, sublayer, mixed_.as<float>(), op.o, op.o_bias);
}

void Executor::run(Stream& stream, const StepShape& shape, const Visit& visit, const LatentOnDevice& op) {
  const SublayerOnDevice& sublayer = model_.sublayers[size_t(visit.sublayer)];
  const KeyPlace place = place_of(op.place, visit);
  const int tokens = shape.tokens, query_dim = op.nope + op.rope_dims, latent = op.place.value_dim,
            low_rank = op.q_a.rows;
  float *const key = projected_.as<float>(), *const queries = queries_.as<float>(), *const low = low_.as<float>();
  float* const low_normed = low + size_t(token_room_) * size_t(low_rank);
  launch_norm_rows(stream, hidden_.as<float>(), sublayer.norm, model_.hidden, normed_.as<float>(), tokens);
  const auto project = [&](const float* in, const Matrix& matrix, const float* bias, const Norm& norm, float* out) {
    if (tokens == 1)
      launch_project(
          stream,
          {.in = in, .cols = matrix.cols, .norm = norm, .parts = {matrix}, .bias = {bias}, .count = 1, .out = out});
    else
      multiply(stream, tokens, in, matrix, bias, out, matrix.rows, 0);
  };
  project(normed_.as<float>(), op.kv_a, op.kv_a_bias, {}, key);
  if (low_rank > 0) {
    project(normed_.as<float>(), op.q_a, op.q_a_bias, {}, low);
    if (tokens > 1) launch_norm_rows(stream, low, op.q_a_norm, low_rank, low_normed, tokens);
    project(tokens == 1 ? low : low_normed, op.q, nullptr, tokens == 1 ? op.q_a_norm : Norm{}, queries);
  } else {
    project(normed_.as<float>(), op.q, nullptr, {}, queries);
  }
  launch_finish_latents(stream, state_.as<StepState>(),
                        {.first = key,
                         .step = op.place.head_dim,
                         .queries = queries,
                         .absorbed = absorbed_.as<float>(),
                         .heads = op.heads,
                         .nope = op.nope,
                         .rope_dims = op.rope_dims,
                         .place = place,
                         .latent_norm = op.kv_a_norm,
                         .rope = rope(op.rope),
                         .query_scale = op.query_scale,
                         .latent_scale = op.latent_scale},
                        tokens);
  launch_project_heads(stream,
                       {.in = queries,
                        .out = absorbed_.as<float>(),
                        .matrix = op.absorb,
                        .heads = op.heads,
                        .rows = latent,
                        .first = 0,
                        .rows_apart = latent,
                        .in_step = query_dim,
                        .out_step = op.place.head_dim},
                       tokens);
  attend(stream, shape, visit, place, op.heads, op.scale, 0, 0, nullptr, absorbed_.as<float>());
  launch_project_heads(stream,
                       {.in = mixed_.as<float>(),
                        .out = values_.as<float>(),
                        .matrix = op.kv_b,
                        .heads = op.heads,
                        .rows = op.value_dim,
                        .first = op.nope,
                        .rows_apart = op.nope + op.value_dim,
                        .in_step = latent,
                        .out_step = op.value_dim},
                       tokens);
  add_output(stream, shape, sublayer, values_.as<float>(), op.o, op.o_bias);
}

}  // namespace switchyard::cuda

// See executor.h.
#include "engine/backend/cuda/executor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/model/rope.h"

namespace switchyard::cuda {
namespace {

constexpr int kMostSplits = 32;

// The widest of what sublayers ask for.
struct Widths {
  int projected = 1, queries = 1, absorbed = 1, mixed = 1, values = 1, low = 1, experts = 1, width = 1, groups = 1,
      heads = 1, value_dim = 1;
};

int groups_of(const KeyPlace& place, int heads) {
  AttendJob job;
  job.place = place, job.heads = heads;
  return int(attend_groups(job));
}

Widths widths_of(const ModelOnDevice& model) {
  Widths out;
  const auto most = [](int& at, int value) { at = std::max(at, value); };
  for (const SublayerOnDevice& sublayer : model.sublayers) {
    if (const auto* a = std::get_if<AttentionOnDevice>(&sublayer.op)) {
      most(out.projected, a->step()), most(out.queries, a->heads * a->place.head_dim),
          most(out.mixed, a->heads * a->place.value_dim);
      most(out.groups, groups_of(a->place, a->heads)), most(out.heads, a->heads),
          most(out.value_dim, a->place.value_dim);
    } else if (const auto* l = std::get_if<LatentOnDevice>(&sublayer.op)) {
      most(out.projected, l->place.head_dim), most(out.queries, l->heads * (l->nope + l->rope_dims));
      most(out.absorbed, l->heads * l->place.head_dim), most(out.mixed, l->heads * l->place.value_dim),
          most(out.values, l->heads * l->value_dim);
      most(out.low, l->q_a.rows), most(out.groups, groups_of(l->place, l->heads)), most(out.heads, l->heads),
          most(out.value_dim, l->place.value_dim);
    } else {
      const auto& f = std::get<FeedForwardOnDevice>(sublayer.op);
      most(out.experts, f.gate.spec.experts), most(out.width, f.width());
    }
  }
  return out;
}

// Larger where it is too small; its contents are lost.
Result<void> grow(Buffer& buffer, size_t bytes, const char* what) {
  if (buffer.bytes() >= bytes) return {};
  buffer = Buffer();
  SY_TRY(buffer, Buffer::make(bytes, Place::kDevice, what));
  return {};
}

}  // namespace

Result<std::unique_ptr<Executor>> Executor::make(const ModelOnDevice& model, Stream& stream, int positions) {
  std::unique_ptr<Executor> out(new Executor(model, stream, positions));
  SY_CHECK(out->make_ropes());
  SY_TRY(out->state_, Buffer::make(sizeof(StepState), Place::kDevice, "the state of a step"));
  SY_TRY(out->host_state_, Buffer::make(sizeof(StepState), Place::kPinned, "the state of a step"));
  SY_TRY(out->sampler_, Buffer::make(sizeof(Sampler), Place::kDevice, "the sampler"));
  SY_TRY(out->host_sampler_, Buffer::make(sizeof(Sampler), Place::kPinned, "the sampler"));
  SY_TRY(out->chosen_, Buffer::make(sizeof(int32_t) * size_t(positions + 1), Place::kDevice, "chosen tokens"));
  SY_TRY(out->tables_,
         Buffer::make(sizeof(GateTable) * std::max<size_t>(1, model.rows.size()), Place::kDevice, "recipe tables"));
  out->set_sampler({});
  return out;
}

void Executor::set_sampler(const Sampler& sampler) {
  *host_sampler_.as<Sampler>() = sampler;
}

// The angle is a float product, as transformers computes it; its cosine is exact to a float.
Result<void> Executor::make_ropes() {
  for (const RopeSpec& spec : model_.ropes) {
    const RopeFrequencies in_force = rope_frequencies(spec, 0);
    const size_t pairs = size_t(spec.dims) / 2, count = pairs * size_t(positions_);
    std::vector<float> cosines(count), sines(count);
    for (size_t i = 0; i < count; ++i) {
      const float angle = float(i / pairs) * in_force.inv_freq[i % pairs];
      cosines[i] = std::cos(angle) * in_force.attention_factor, sines[i] = std::sin(angle) * in_force.attention_factor;
    }
    RopeTables& tables = ropes_.emplace_back();
    for (const auto& [buffer, values] : {std::pair(&tables.cosines, &cosines), {&tables.sines, &sines}}) {
      SY_TRY(*buffer, Buffer::make(std::max<size_t>(1, count) * sizeof(float), Place::kDevice, "rope angles"));
      SY_CHECK(copy(stream_, buffer->as<>(), values->data(), count * sizeof(float), "rope angles"));
    }
    SY_CHECK(wait(stream_, "rope angles"));
  }
  return {};
}

Rope Executor::rope(int index) const {
  if (index < 0) return {};
  const RopeSpec& spec = model_.ropes[size_t(index)];
  return {ropes_[size_t(index)].cosines.as<float>(), ropes_[size_t(index)].sines.as<float>(), spec.dims,
          spec.kind == RopeKind::kInterleaved};
}

Result<void> Executor::size_buffers(const StepShape& shape) {
  const int rows = shape.all_logits ? shape.tokens : 1;
  if (shape.tokens <= token_room_ && shape.slots <= slot_room_ && shape.width <= width_room_ && rows <= logit_rows_)
    return {};
  graph_.reset();  // it holds the old addresses
  token_room_ = std::max(token_room_, shape.tokens), slot_room_ = std::max(slot_room_, shape.slots);
  width_room_ = std::max(width_room_, shape.width), logit_rows_ = std::max(logit_rows_, rows);
  const Widths most = widths_of(model_);
  const auto tokens = size_t(token_room_), slots = size_t(slot_room_), hidden = size_t(model_.hidden),
             all = tokens * slots;
  splits_ = std::clamp(2 * stream_.processors / most.groups, 1, kMostSplits);
  const auto floats = [&](Buffer& buffer, size_t count) {
    return grow(buffer, std::max<size_t>(1, count) * sizeof(float), "activations");
  };
  SY_CHECK(floats(tokens_, tokens));
  SY_CHECK(floats(hidden_, tokens * hidden));
  SY_CHECK(floats(normed_, tokens * hidden));
  SY_CHECK(floats(projected_, tokens * size_t(most.projected)));
  SY_CHECK(floats(queries_, tokens * size_t(most.queries)));
  SY_CHECK(floats(absorbed_, tokens * size_t(most.absorbed)));
  SY_CHECK(floats(mixed_, tokens * size_t(most.mixed)));
  SY_CHECK(floats(values_, tokens * size_t(most.values)));
  SY_CHECK(floats(low_, 2 * tokens * size_t(most.low)));  // as projected, then as normed
  SY_CHECK(floats(partial_, size_t(most.heads) * size_t(splits_) * size_t(most.value_dim + 2)));
  SY_CHECK(floats(router_, tokens * size_t(most.experts + 1)));
  SY_CHECK(floats(biased_, tokens * size_t(most.experts)));
  SY_CHECK(floats(shared_gates_, tokens));
  SY_CHECK(floats(count_, tokens));
  SY_CHECK(floats(weights_, all));
  SY_CHECK(floats(inputs_, all));
  SY_CHECK(grow(experts_, std::max<size_t>(1, all) * sizeof(ExpertId), "activations"));
  SY_CHECK(floats(units_, std::max(all, slots + 1) * size_t(most.width)));
  SY_CHECK(floats(logits_, size_t(logit_rows_) * size_t(model_.vocab)));
  if (tokens > 1) {
    SY_CHECK(floats(routed_, all * hidden));
    SY_CHECK(floats(shared_units_, tokens * size_t(most.width)));
    SY_CHECK(floats(shared_, tokens * hidden));
    SY_CHECK(floats(slot_counts_, size_t(most.experts)));
    SY_CHECK(floats(slot_starts_, size_t(most.experts + 1)));
    SY_CHECK(floats(slot_tokens_, all));
    SY_CHECK(floats(slot_inputs_, all));
    SY_CHECK(floats(slot_places_, all));
  }
  // One counter for each group of query heads, and the router's.
  SY_CHECK(floats(counters_, size_t(most.groups) * tokens + 1));
  SY_CHECK(clear(stream_, counters_.as<>(), counters_.bytes(), "counters"));
  if (host_tokens_.bytes() < tokens * sizeof(int32_t)) {
    SY_TRY(host_tokens_, Buffer::make(tokens * sizeof(int32_t), Place::kPinned, "token ids"));
  }
  return wait(stream_, "activations");
}

Result<void> Executor::step(const StepShape& shape, std::span<const TokenId> tokens, const DeviceCache& cache,
                            uint32_t sequence, uint64_t first_record, uint64_t* done) {
  SY_CHECK(size_buffers(shape));
  *host_state_.as<StepState>() = {.position = cache.length(),
                                  .count = int32_t(tokens.size()),
                                  .sequence = sequence,
                                  .record = first_record,
                                  .blocks = cache.table(),
                                  .tokens = tokens_.as<int32_t>()};
  std::copy(tokens.begin(), tokens.end(), host_tokens_.as<int32_t>());
  SY_CHECK(copy(stream_, state_.as<>(), host_state_.as<>(), sizeof(StepState), "the state of a step"));
  SY_CHECK(copy(stream_, tokens_.as<>(), host_tokens_.as<>(), tokens.size() * sizeof(int32_t), "token ids"));
  if (shape.picks) SY_CHECK(copy(stream_, sampler_.as<>(), host_sampler_.as<>(), sizeof(Sampler), "the sampler"));
  if (shape.tokens > 1) {
    launch_all(stream_, shape, done);
    return {};
  }
  return run_on(shape, 1, done);
}

Result<void> Executor::run_on(const StepShape& shape, int count, uint64_t* done) {
  if (!graph_ || !(captured_ == shape) || captured_done_ != done) {
    SY_TRY(graph_, capture(stream_, [&](Stream& stream) { launch_all(stream, shape, done); }));
    captured_ = shape, captured_done_ = done;
  }
  for (int i = 0; i < count; ++i) SY_CHECK(graph_->launch(stream_));
  return {};
}

void Executor::launch_all(Stream& stream, const StepShape& shape, uint64_t* done) {
  launch_embed(stream, state_.as<StepState>(), model_.embedding, model_.embedding_scale, hidden_.as<float>(),
               shape.tokens);
  for (const SublayerOnDevice& sublayer : model_.sublayers) {
    stream.layer = sublayer.layer;
    std::visit([&](const auto& op) { run(stream, shape, sublayer, op); }, sublayer.op);
  }
  stream.layer = -1;
  if (shape.logits || shape.picks) head(stream, shape);
  if (done) launch_tell_host(stream, state_.as<StepState>(), done);
  if (shape.picks)
    launch_pick(stream, {.logits = logits(),
                         .vocab = model_.vocab,
                         .sampler = sampler_.as<Sampler>(),
                         .state = state_.as<StepState>(),
                         .chosen = chosen_.as<int32_t>()});
}

void Executor::multiply(Stream& stream, int tokens, const float* in, const Matrix& matrix, const float* bias,
                        float* out, int step, int at, bool adds, float factor) const {
  launch_multiply_tiles(stream, {.in = in,
                                 .tokens = tokens,
                                 .matrix = matrix,
                                 .bias = bias,
                                 .out = out,
                                 .step = step,
                                 .at = at,
                                 .adds = adds,
                                 .factor = factor});
}

void Executor::add_output(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const float* in,
                          const Matrix& matrix, const float* bias) {
  float* const hidden = hidden_.as<float>();
  if (shape.tokens == 1)
    launch_project(stream, {.in = in,
                            .cols = matrix.cols,
                            .parts = {matrix},
                            .bias = {bias},
                            .count = 1,
                            .out = hidden,
                            .adds = true,
                            .factor = sublayer.factor});
  else
    multiply(stream, shape.tokens, in, matrix, bias, hidden, model_.hidden, 0, true, sublayer.factor);
}

void Executor::attend(Stream& stream, const StepShape& shape, const KeyPlace& place, int heads, float scale, int window,
                      int chunk, const float* sinks, const float* queries) {
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
}

void Executor::run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer,
                   const AttentionOnDevice& op) {
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
                       .place = op.place,
                       .qk_norm = op.qk_norm,
                       .query_norm = op.q_norm,
                       .key_norm = op.k_norm,
                       .clip = op.clip,
                       .rope = rope(op.rope),
                       .temperature_floor = op.temperature_floor,
                       .temperature_scale = op.temperature_scale},
                      shape.tokens);
  attend(stream, shape, op.place, op.heads, op.scale, op.window, op.chunk, op.sinks, queries_.as<float>());
  add_output(stream, shape, sublayer, mixed_.as<float>(), op.o, op.o_bias);
}

void Executor::run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const LatentOnDevice& op) {
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
                         .place = op.place,
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
  attend(stream, shape, op.place, op.heads, op.scale, 0, 0, nullptr, absorbed_.as<float>());
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

void Executor::run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer,
                   const FeedForwardOnDevice& op) {
  const RouteJob job{
      .tables = tables(),
      .row = op.row,
      .logits = router_.as<float>(),
      .biased = biased_.as<float>(),
      .width = shape.width,
      .slots = shape.slots,
      .chosen = {count_.as<int32_t>(), experts_.as<ExpertId>(), weights_.as<float>(), inputs_.as<float>(), shape.slots},
      .ring = shape.ring};
  if (shape.tokens == 1)
    run_one(stream, job, sublayer, op);
  else
    run_many(stream, shape, job, sublayer, op);
}

void Executor::run_one(Stream& stream, const RouteJob& job, const SublayerOnDevice& sublayer,
                       const FeedForwardOnDevice& op) {
  const bool routes = op.row >= 0, gated = op.shared_gate.rows > 0;
  if (routes) {
    // The gate of the shared block is one more row of the router's product.
    const Projection router{.in = hidden_.as<float>(),
                            .cols = model_.hidden,
                            .norm = sublayer.norm,
                            .normed = normed_.as<float>(),
                            .parts = {op.router, op.shared_gate},
                            .count = gated ? 2 : 1,
                            .out = router_.as<float>()};
    launch_route(stream, state_.as<StepState>(), router, job, counters_.as<unsigned>());
  } else {
    launch_norm_rows(stream, hidden_.as<float>(), sublayer.norm, model_.hidden, normed_.as<float>(), 1);
  }
  ExpertJob experts{.experts = routes ? op.experts : nullptr,
                    .form = op.form,
                    .chosen = job.chosen,
                    .shared = op.shared,
                    .shared_form = op.shared_form,
                    .shared_gate = gated ? router_.as<float>() + op.router.rows : nullptr,
                    .in = normed_.as<float>(),
                    .hidden = model_.hidden,
                    .units = units_.as<float>(),
                    .width = op.width(),
                    .output_bias = op.output_bias,
                    .out = hidden_.as<float>(),
                    .factor = sublayer.factor};
  if (!routes) experts.chosen.slots = 0;
  launch_expert_units(stream, experts);
  launch_expert_down(stream, experts);
}

void Executor::run_many(Stream& stream, const StepShape& shape, const RouteJob& job, const SublayerOnDevice& sublayer,
                        const FeedForwardOnDevice& op) {
  const int tokens = shape.tokens;
  const bool routes = op.row >= 0, gated = op.shared_gate.rows > 0;
  const float* const normed = normed_.as<float>();
  launch_norm_rows(stream, hidden_.as<float>(), sublayer.norm, model_.hidden, normed_.as<float>(), tokens);
  CombineJob sum{.chosen = job.chosen,
                 .output_bias = op.output_bias,
                 .hidden = model_.hidden,
                 .out = hidden_.as<float>(),
                 .factor = sublayer.factor};
  if (routes) {
    const int experts = op.gate.spec.experts;
    multiply(stream, tokens, normed, op.router, nullptr, router_.as<float>(), experts, 0);
    launch_route_rows(stream, state_.as<StepState>(), job, tokens);
    const Sorted sorted{slot_counts_.as<int32_t>(), slot_starts_.as<int32_t>(), slot_tokens_.as<int32_t>(),
                        slot_inputs_.as<float>(), slot_places_.as<int32_t>()};
    launch_sort_slots(stream, job.chosen, tokens, experts, sorted);
    launch_group_units(stream,
                       {.experts = op.experts,
                        .form = op.form,
                        .starts = sorted.starts,
                        .rows = sorted.tokens,
                        .weights = sorted.inputs,
                        .in = normed,
                        .cols = model_.hidden,
                        .out = units_.as<float>()},
                       experts, tokens);
    launch_group_down(stream,
                      {.experts = op.experts,
                       .form = op.form,
                       .starts = sorted.starts,
                       .in = units_.as<float>(),
                       .cols = op.form.width,
                       .out = routed_.as<float>()},
                      model_.hidden, experts, tokens);
    sum.places = sorted.places, sum.routed = routed_.as<float>();
  }
  if (op.shared) {
    launch_group_units(stream,
                       {.experts = op.shared,
                        .form = op.shared_form,
                        .tokens = tokens,
                        .in = normed,
                        .cols = model_.hidden,
                        .out = shared_units_.as<float>()},
                       1, tokens);
    launch_group_down(stream,
                      {.experts = op.shared,
                       .form = op.shared_form,
                       .tokens = tokens,
                       .in = shared_units_.as<float>(),
                       .cols = op.shared_form.width,
                       .out = shared_.as<float>()},
                      model_.hidden, 1, tokens);
    sum.shared = shared_.as<float>();
    if (gated) {
      multiply(stream, tokens, normed, op.shared_gate, nullptr, shared_gates_.as<float>(), 1, 0);
      sum.shared_gate = shared_gates_.as<float>();
    }
  }
  launch_combine(stream, sum, tokens);
}

void Executor::head(Stream& stream, const StepShape& shape) {
  const int first = shape.all_logits ? 0 : shape.tokens - 1;
  for (int token = first; token < shape.tokens; ++token)
    launch_project(stream, {.in = hidden_.as<float>() + size_t(token) * size_t(model_.hidden),
                            .cols = model_.hidden,
                            .norm = model_.final_norm,
                            .columns = model_.lm_head_columns,
                            .parts = {model_.lm_head},
                            .bias = {model_.lm_head_bias},
                            .count = 1,
                            .out = logits_.as<float>() + size_t(token - first) * size_t(model_.vocab),
                            .factor = model_.logit_scale});
}

}  // namespace switchyard::cuda

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
  if (shape.tokens <= token_room_ && shape.slots <= slot_room_ && shape.width <= width_room_ && rows <= logit_rows_ &&
      shape.window() <= share_room_)
    return {};
  graph_.reset(), stretches_.clear();  // they hold the old addresses
  share_room_ = std::max(share_room_, shape.window());
  token_room_ = std::max(token_room_, shape.tokens), slot_room_ = std::max(slot_room_, shape.slots);
  width_room_ = std::max(width_room_, shape.width), logit_rows_ = std::max(logit_rows_, rows);
  const Widths most = widths_of(model_);
  const auto tokens = size_t(token_room_), slots = size_t(slot_room_), hidden = size_t(model_.hidden),
             all = tokens * slots;
  splits_ = std::clamp(2 * stream_.processors / most.groups, 1, kMostSplits);
  const auto floats = [&](Buffer& buffer, size_t count) {
    return grow(buffer, std::max<size_t>(1, count) * sizeof(float), Place::kDevice, "activations");
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
  SY_CHECK(grow(experts_, std::max<size_t>(1, all) * sizeof(ExpertId), Place::kDevice, "activations"));
  SY_CHECK(floats(units_, std::max(all, slots + 1) * size_t(most.width)));
  SY_CHECK(floats(logits_, size_t(logit_rows_) * size_t(model_.vocab)));
  SY_CHECK(floats(shares_, tokens * size_t(share_room_)));
  SY_CHECK(floats(routed_, all * hidden));
  SY_CHECK(floats(slot_counts_, size_t(most.experts)));
  SY_CHECK(floats(slot_starts_, size_t(most.experts + 1)));
  SY_CHECK(floats(slot_tokens_, all));
  SY_CHECK(floats(slot_inputs_, all));
  SY_CHECK(floats(slot_places_, all));
  if (tokens > 1) {
    SY_CHECK(floats(shared_units_, tokens * size_t(most.width)));
    SY_CHECK(floats(shared_, tokens * hidden));
  }
  // One counter for each group of query heads, and the router's.
  SY_CHECK(floats(counters_, size_t(most.groups) * tokens + 1));
  SY_CHECK(clear(stream_, counters_.as<>(), counters_.bytes(), "counters"));
  SY_CHECK(grow(host_tokens_, tokens * sizeof(int32_t), Place::kPinned, "token ids"));
  return wait(stream_, "activations");
}

Result<void> Executor::step(const StepShape& shape, std::span<const TokenId> tokens, const DeviceCache& cache,
                            uint32_t sequence, uint64_t first_record, uint64_t* done, HostSide* host) {
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
  if (!shape.way.empty()) return walk(shape, host, done);
  if (shape.tokens > 1) {
    launch_all(stream_, shape, done);
    return {};
  }
  return run_on(shape, 1, done);
}

Result<void> Executor::walk(const StepShape& shape, HostSide* host, uint64_t* done) {
  if (!(walked_ == shape)) stretches_.clear(), walked_ = shape;
  begin_step(stream_, shape);
  for (size_t at = 0; at < shape.way.size();) {
    size_t end = at;
    while (end < shape.way.size() && !shape.way[end].host) ++end;
    if (end > at) SY_CHECK(run_stretch(shape, at, end));
    if (end < shape.way.size()) {
      stream_.layer = model_.sublayers[size_t(shape.way[end].sublayer)].layer;
      SY_CHECK(host->run(shape, shape.way[end++]));
    }
    at = end;
  }
  stream_.layer = -1;
  end_step(stream_, shape, done);
  return {};
}

Result<void> Executor::run_stretch(const StepShape& shape, size_t first, size_t end) {
  const auto launch = [&](Stream& stream) {
    for (size_t at = first; at < end; ++at) launch_visit(stream, shape, shape.way[at]);
  };
  if (shape.tokens > 1) {
    launch(stream_);
    return {};
  }
  std::unique_ptr<Graph>& graph = stretches_[first];
  if (!graph) {
    SY_TRY(graph, capture(stream_, launch));
  }
  return graph->launch(stream_);
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
  begin_step(stream, shape);
  for (size_t i = 0; i < model_.sublayers.size(); ++i) {
    const auto* attention = std::get_if<AttentionOnDevice>(&model_.sublayers[i].op);
    const auto* latent = std::get_if<LatentOnDevice>(&model_.sublayers[i].op);
    launch_visit(stream, shape,
                 {.sublayer = int(i),
                  .keys = attention ? attention->place.keys
                          : latent  ? latent->place.keys
                                    : 0});
  }
  stream.layer = -1;
  end_step(stream, shape, done);
}

void Executor::begin_step(Stream& stream, const StepShape& shape) {
  if (shape.embeds)
    launch_embed(stream, state_.as<StepState>(), model_.embedding, model_.embedding_scale, hidden(), shape.tokens);
}

void Executor::end_step(Stream& stream, const StepShape& shape, uint64_t* done) {
  if (shape.logits || shape.picks) head(stream, shape);
  if (done) launch_tell_host(stream, state_.as<StepState>(), done);
  if (shape.picks)
    launch_pick(stream, {.logits = logits(),
                         .vocab = model_.vocab,
                         .sampler = sampler_.as<Sampler>(),
                         .state = state_.as<StepState>(),
                         .chosen = chosen_.as<int32_t>()});
}

void Executor::launch_visit(Stream& stream, const StepShape& shape, const Visit& visit) {
  const SublayerOnDevice& sublayer = model_.sublayers[size_t(visit.sublayer)];
  stream.layer = sublayer.layer;
  std::visit([&](const auto& op) { run(stream, shape, visit, op); }, sublayer.op);
}

size_t Executor::key_bytes(const SublayerOnDevice& sublayer) {
  const auto bytes = [](const KeyPlace& place) {
    const size_t one = size_t(stored_bytes(place.type)) * kKeyBlock * size_t(place.kv_heads) * size_t(place.head_dim);
    return place.keys == place.values ? one : 2 * one;
  };
  if (const auto* a = std::get_if<AttentionOnDevice>(&sublayer.op)) return bytes(a->place);
  if (const auto* l = std::get_if<LatentOnDevice>(&sublayer.op)) return bytes(l->place);
  return 0;
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

void Executor::head(Stream& stream, const StepShape& shape) {
  // Logits of many tokens: the head's matrix is read once for all, where no column has a factor of its own.
  if (shape.all_logits && !model_.lm_head_columns) {
    launch_norm_rows(stream, hidden_.as<float>(), model_.final_norm, model_.hidden, normed_.as<float>(), shape.tokens);
    return multiply(stream, shape.tokens, normed_.as<float>(), model_.lm_head, model_.lm_head_bias, logits_.as<float>(),
                    model_.vocab, 0, false, model_.logit_scale);
  }
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

// See host_walk.h.
#include "engine/backend/cuda/host_walk.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/cuda/host_numbers.h"
#include "engine/routing/edited_weights.h"

namespace switchyard::cuda {

namespace {

// Whether deciding takes the router's input.
bool wants_inputs(const Scheme& scheme) {
  return reads_input(scheme) || scheme.stages.mixing == Mixing::kLikeness || cuts_experts(scheme);
}

}  // namespace

bool host_decides(const Recipe& recipe, int row, size_t tokens, int passes) {
  if (passes > 1) return true;
  const LayerRecipe* layer = recipe.layer(row);
  return layer && (!beyond_table(*layer).empty() || (batch_coupled(layer->scheme) && tokens > 1));
}

void HostWalk::begin(const HostTask& task) {
  task_ = task;
  gate_.begin();
  records_.clear();
  kept_used_ = 0;
}

Result<void> HostWalk::bring(std::vector<float>& to, const float* from, size_t count, const char* what) {
  to.resize(count);
  SY_CHECK(copy(stream_, to.data(), from, count * sizeof(float), what));
  return wait(stream_, what);
}

Result<void> HostWalk::Pinned::reserve(size_t numbers) {
  return grow(buffer_, numbers * sizeof(float), cuda::Place::kPinned, "numbers for the host's part in a step");
}

Result<void> HostWalk::fetch(Pinned& to, const float* from, size_t count, const char* what) {
  SY_CHECK(to.reserve(count));
  return copy(stream_, to.as(count).data(), from, count * sizeof(float), what);
}

Result<void> HostWalk::run(const StepShape& shape, const Visit& visit) {
  const SublayerOnDevice& sublayer = model_.sublayers[size_t(visit.sublayer)];
  const auto& op = std::get<FeedForwardOnDevice>(sublayer.op);
  int window = 0;
  for (const Visit* at = &visit; window == 0 && at != shape.way.data();) window = (--at)->window;
  const Place place{
      .shape = shape,
      .sublayer = sublayer,
      .op = op,
      .recipe = task_.recipe->layer(op.row),
      .pass = visit.pass,
      .window = window,
      .decides = host_decides(*task_.recipe, op.row, task_.together ? 2 : 1, task_.recipe->passes_of(sublayer.layer))};
  if (place.recipe && runs_in_passes(place.recipe->scheme)) return run_passes(place);
  return run_once(place, executor_.hidden(), sublayer.factor, false);
}

// See PassResidual.
Result<void> HostWalk::run_passes(const Place& place) {
  const Stages& scheme = place.recipe->scheme.stages;
  const size_t count = place.tokens() * size_t(model_.hidden), bytes = count * sizeof(float);
  SY_CHECK(grow(passed_, bytes, cuda::Place::kDevice, "what a pass gave"));
  executor_.make_logits(place.shape, place.sublayer, true);  // for the norm
  std::vector<float> state, made(count, 0.0f), y, hidden;
  SY_CHECK(bring(state, executor_.normed(), count, "the input of a layer in passes"));
  for (int pass = 0; pass < scheme.passes; ++pass) {
    Place own = place;
    own.decision = pass;
    if (pass > 0) SY_CHECK(copy(stream_, executor_.normed(), state.data(), bytes, "the input of a pass"));
    SY_CHECK(clear(stream_, passed_.as<>(), bytes, "what a pass gave"));
    SY_CHECK(run_once(own, passed_.as<float>(), 1, true));
    SY_CHECK(bring(y, passed_.as<float>(), count, "what a pass gave"));
    for (size_t i = 0; i < count; ++i) {
      state[i] = scheme.residual == PassResidual::kOuter ? y[i] : state[i] + y[i];
      made[i] = scheme.residual == PassResidual::kSum ? made[i] + y[i] : state[i];
    }
  }
  SY_CHECK(bring(hidden, executor_.hidden(), count, "the residual stream"));
  for (size_t i = 0; i < count; ++i) {
    const float before = scheme.residual == PassResidual::kInner ? 0.0f : hidden[i];
    hidden[i] = before + place.sublayer.factor * made[i];
  }
  SY_CHECK(copy(stream_, executor_.hidden(), hidden.data(), bytes, "the residual stream"));
  return wait(stream_, "the residual stream");
}

Result<void> HostWalk::run_once(const Place& place, float* out, float factor, bool has_input) {
  const size_t numbers = place.tokens() * size_t(model_.hidden);
  if (task_.taps != 0) SY_CHECK(bring(residual_, out, numbers, "the residual stream"));
  executor_.make_logits(place.shape, place.sublayer, !has_input);
  const Scheme none, &scheme = place.recipe ? place.recipe->scheme : none;
  if (task_.tap || (place.decides && wants_inputs(scheme)))
    SY_CHECK(fetch(inputs_, executor_.normed(), numbers, "the inputs of a router"));
  bool by_host = place.decides;
  if (place.decides) {
    SY_TRY(by_host, decide(place));
  } else {
    executor_.decide(place.shape, place.op);
  }
  if (task_.tap) {
    if (!by_host) SY_CHECK(wait(stream_, "the inputs of a router"));
    for (size_t token = 0; token < place.tokens(); ++token)
      task_.tap->see(place.op.row, task_.first + token,
                     inputs_.as(numbers).subspan(token * size_t(model_.hidden), size_t(model_.hidden)));
  }
  const bool cuts = cuts_experts(scheme), looks = cuts || task_.units || task_.taps != 0;
  if (looks && !by_host) SY_CHECK(bring_chosen(place));
  executor_.make_units(place.shape, place.op);
  if (cuts || task_.units) SY_CHECK(work_on_units(place));
  executor_.add_outputs(place.shape, place.op, out, factor);
  return task_.taps != 0 ? measure(place, factor) : Result<void>{};
}

// ---- decisions ------------------------------------------------------------------------------------

Result<HostWalk::Router*> HostWalk::router(const Place& place) {
  Router& out = routers_[place.op.row];
  if (out.read) return &out;
  const ModelGate& gate = place.op.gate;
  const auto experts = size_t(gate.spec.experts);
  if (gate.router_bias) SY_CHECK(bring(out.router_bias, gate.router_bias, experts, "a router's bias"));
  if (gate.select_bias) SY_CHECK(bring(out.select_bias, gate.select_bias, experts, "a router's bias"));
  out.read = true;
  return &out;
}

Result<bool> HostWalk::decide(const Place& place) {
  SY_TRY(Router* const router, this->router(place));
  SY_TRY(const bool on_device, decide_on_device(place, *router));
  if (on_device) return false;
  const RouterSpec& spec = place.op.gate.spec;
  const Scheme none, &scheme = place.recipe ? place.recipe->scheme : none;
  const bool gated = !gate_of(scheme, place.decision).empty(),
             replaced = place.recipe && !place.recipe->router_rows.empty(),
             follows = scheme && scheme.stages.mixing == Mixing::kAttention,
             cosines = scheme && scheme.stages.source == LogitSource::kCosine;
  const UploadedRows* rows = nullptr;
  if (replaced) {
    SY_TRY(rows, replaced_rows(place));
  }
  if (cosines) SY_CHECK(bring_norms(place, *router));
  SY_CHECK(fetch_logits(place, rows));
  const size_t shared = follows ? place.tokens() * size_t(place.window) : 0;
  if (follows) SY_CHECK(fetch(shares_, executor_.shares(), shared, "shares of attention"));
  SY_CHECK(wait(stream_, "what a router said"));

  merge_logits(place, *router, rows);
  const std::span<const float> logits = logits_.as(place.tokens() * size_t(spec.experts));
  std::vector<float> norms = cosines ? router->norms : std::vector<float>();
  for (size_t i = 0; cosines && rows && i < rows->experts.size(); ++i) norms[rows->experts[i]] = rows->lengths[i];
  const std::span<const float> own_bias = router->router_bias,
                               inputs = wants_inputs(scheme) ? inputs_.as(place.tokens() * size_t(model_.hidden))
                                                             : std::span<float>();
  gate_.decide(spec, place.recipe,
               {.ids = task_.tokens,
                .position = task_.cache->length(),
                .sequence = task_.sequence,
                .row = place.pass * int(model_.rows.size()) + place.op.row,
                .memory = &task_.cache->routers()},
               {.logits = logits,
                .native = native_,
                .inputs = inputs,
                .shares = shares_.as(shared),
                .row_norms = norms,
                .router_bias = gated ? std::span<const float>() : own_bias,
                .select_bias = router->select_bias});
  if (task_.records) records_.add(frame_row(place, place.decision), gate_, logits);
  slots_ = gate_.chosen(spec, place.recipe);
  SY_CHECK(send_chosen(place));
  return true;
}

Result<void> HostWalk::fetch_logits(const Place& place, const UploadedRows* rows) {
  SY_CHECK(
      fetch(logits_, executor_.router_logits(), place.tokens() * size_t(place.op.gate.spec.experts), "router logits"));
  Matrix matrix;
  if (place.recipe && !gate_of(place.recipe->scheme, place.decision).empty()) {
    SY_TRY(matrix, own_gate(place));
  } else if (rows) {
    matrix = rows->matrix;
  }
  const size_t count = place.tokens() * size_t(matrix.rows);
  if (count == 0) return {};
  SY_CHECK(grow(more_, count * sizeof(float), cuda::Place::kDevice, "logits of router rows"));
  executor_.make_more(place.shape, matrix, more_.as<float>());
  return fetch(replaced_, more_.as<float>(), count, "logits of router rows");
}

void HostWalk::merge_logits(const Place& place, const Router& router, const UploadedRows* rows) {
  const auto experts = size_t(place.op.gate.spec.experts), count = place.tokens() * experts;
  const std::span<float> logits = logits_.as(count);
  if (!router.router_bias.empty())
    for (size_t i = 0; i < count; ++i) logits[i] += router.router_bias[i % experts];
  native_.clear();
  const bool gated = place.recipe && !gate_of(place.recipe->scheme, place.decision).empty();
  if (gated || rows) native_.assign(logits.begin(), logits.end());
  if (gated) {  // in the place of the router's weight; it has no bias
    std::ranges::copy(replaced_.as(count), logits.begin());
    return;
  }
  const size_t wide = rows ? rows->experts.size() : 0;
  const std::span<const float> said = replaced_.as(place.tokens() * wide);
  for (size_t i = 0; i < said.size(); ++i) {
    const ExpertId e = rows->experts[i % wide];
    logits[i / wide * experts + e] = said[i] + (router.router_bias.empty() ? 0.0f : router.router_bias[e]);
  }
}

Result<const HostWalk::UploadedRows*> HostWalk::replaced_rows(const Place& place) {
  UploadedRows& rows = rows_[place.op.row];
  const std::vector<RowSource>& sources = place.recipe->router_rows;
  if (rows.sources == sources) return &rows;
  const Matrix& router = place.op.router;
  const auto width = size_t(router.cols);
  SY_TRY(const std::vector<float> all, numbers_on_host(stream_, router));
  const auto row = [&](size_t e) { return std::span(all).subspan(e * width, width); };
  UploadedRows made{.sources = sources};
  std::vector<float> values;
  for (size_t id = 0; id < sources.size(); ++id) {
    const RowSource& source = sources[id];
    if (source == RowSource{}) continue;
    made.experts.push_back(ExpertId(id));
    values.resize(values.size() + width);
    const auto own = std::span(values).last(width);
    edited_row(source, row(id), source.expert == kNoExpert ? std::span<const float>() : row(source.expert),
               stored_dtype(router.type), own);
    double squares = 0;
    for (const float value : own) squares += double(value) * value;
    made.lengths.push_back(static_cast<float>(std::sqrt(squares)));
  }
  if (!values.empty()) {
    SY_TRY(made.data, Buffer::make(values.size() * sizeof(float), cuda::Place::kDevice, "router rows"));
    SY_CHECK(copy(stream_, made.data.as<>(), values.data(), values.size() * sizeof(float), "router rows"));
    SY_CHECK(wait(stream_, "router rows"));
  }
  made.matrix = {made.data.as<>(), int(made.experts.size()), router.cols, Stored::kF32};
  rows = std::move(made);
  return &rows;
}

// A gate of the scheme's file for this decision, [E, hidden].
Result<Matrix> HostWalk::own_gate(const Place& place) {
  const std::span<const float> values = gate_of(place.recipe->scheme, place.decision);
  UploadedGate& gate = gates_[{place.op.row, place.decision}];
  if (gate.data != place.recipe->scheme.data) {
    SY_TRY(gate.values, Buffer::make(values.size_bytes(), cuda::Place::kDevice, "a router of a scheme"));
    SY_CHECK(copy(stream_, gate.values.as<>(), values.data(), values.size_bytes(), "a router of a scheme"));
    SY_CHECK(wait(stream_, "a router of a scheme"));
    gate.data = place.recipe->scheme.data;
  }
  return Matrix{gate.values.as<>(), place.op.gate.spec.experts, place.op.router.cols, Stored::kF32};
}

Result<void> HostWalk::bring_norms(const Place& place, Router& router) {
  if (!router.norms.empty()) return {};
  SY_TRY(const std::vector<float> all, numbers_on_host(stream_, place.op.router));
  const auto width = size_t(place.op.router.cols);
  for (size_t e = 0; e < size_t(place.op.router.rows); ++e) {
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += double(all[e * width + i]) * all[e * width + i];
    router.norms.push_back(static_cast<float>(std::sqrt(sum)));
  }
  return {};
}

// What is sent stays as it is until the next wait of the stream, which comes before the next decision.
Result<void> HostWalk::send_chosen(const Place& place) {
  const size_t tokens = place.tokens(), all = tokens * size_t(place.shape.slots);
  SY_CHECK(chosen_.reserve(tokens + 3 * all));
  const auto count = chosen_.as<int32_t>(tokens);
  const auto numbers = chosen_.as<float>(tokens + 2 * all).last(2 * all), weights = numbers.first(all),
             inputs = numbers.last(all);
  const auto ids = chosen_.as<ExpertId>(2 * (tokens + 2 * all) + all).last(all);  // two in the place of a float
  std::ranges::fill(count, 0);
  for (const HostSlot& slot : slots_) {
    const size_t at = size_t(slot.token) * size_t(place.shape.slots) + size_t(count[size_t(slot.token)]++);
    ids[at] = slot.expert, weights[at] = slot.weight, inputs[at] = slot.input;
  }
  const Chosen to = executor_.chosen(place.shape);
  const auto send = [&](void* at, const auto& values) {
    return copy(stream_, at, values.data(), values.size_bytes(), "decisions of the host");
  };
  SY_CHECK(send(to.count, count));
  SY_CHECK(send(to.experts, ids));
  SY_CHECK(send(to.weights, weights));
  return send(to.inputs, inputs);
}

Result<void> HostWalk::bring_chosen(const Place& place) {
  const size_t tokens = place.tokens(), room = size_t(place.shape.slots);
  std::vector<int32_t> count(tokens);
  std::vector<ExpertId> ids(tokens * room);
  std::vector<float> weights(tokens * room), inputs(tokens * room);
  const Chosen from = executor_.chosen(place.shape);
  const auto bring_all = [&](auto& values, const void* at) {
    return copy(stream_, values.data(), at, values.size() * sizeof(values[0]), "decisions");
  };
  SY_CHECK(bring_all(count, from.count));
  SY_CHECK(bring_all(ids, from.experts));
  SY_CHECK(bring_all(weights, from.weights));
  SY_CHECK(bring_all(inputs, from.inputs));
  SY_CHECK(wait(stream_, "decisions"));
  slots_.clear();
  for (size_t token = 0; token < tokens; ++token)
    for (size_t at = token * room; at < token * room + size_t(count[token]); ++at)
      slots_.push_back({int(token), ids[at], weights[at], inputs[at], 1});
  return {};
}

int HostWalk::frame_row(const Place& place, int decision) const {
  return decision_row(int(model_.rows.size()), place.op.row, place.recipe, place.pass, decision);
}

}  // namespace switchyard::cuda

// From the kinds of a plan to those of the backend. See model.h.
#include "engine/backend/cpu/model.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/loader.h"
#include "engine/model/linears.h"
#include "engine/model/quantised.h"

namespace switchyard::cpu {
namespace {

Unit unit(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return Unit::kSilu;
    case Activation::kGelu:
      return Unit::kGelu;
    case Activation::kGeluTanh:
      return Unit::kGeluTanh;
    case Activation::kRelu:
      return Unit::kRelu;
  }
  return Unit::kSilu;
}

FfnForm form(const FfnShape& shape) {
  return {shape.kind, unit(shape.activation), shape.width, shape.limit, shape.alpha};
}

// Index of an equal rope, which is added where there is none.
int rope_index(const RopeSpec& spec, std::vector<RopeSpec>& ropes) {
  if (spec.kind == RopeKind::kNone || spec.dims == 0) return -1;
  const auto found = std::find(ropes.begin(), ropes.end(), spec);
  if (found != ropes.end()) return static_cast<int>(found - ropes.begin());
  ropes.push_back(spec);
  return static_cast<int>(ropes.size()) - 1;
}

class Builder {
 public:
  Builder(const WeightStore& weights, Model& model) : load_(weights, model.copies), model_(model) {}

  Result<void> head(const ModelPlan& plan) {
    SY_CHECK(load_.matrix(plan.embedding, model_.embedding));
    SY_CHECK(load_.matrix(plan.lm_head, model_.lm_head));
    SY_CHECK(load_.vector(plan.lm_head_bias, model_.lm_head_bias));
    if (plan.normalised_head) normalise_head();
    return load_.norm(plan.final_norm, plan.hidden, model_.final_norm);
  }

  Result<void> sublayer(const switchyard::Sublayer& spec, Sublayer& out) {
    SY_CHECK(load_.norm(spec.norm, model_.hidden, out.norm));
    SY_CHECK(load_.norm(spec.post_norm, model_.hidden, out.post_norm));
    SY_CHECK(load_.vector(spec.base_weight, out.base));
    if (spec.base_scale != 1) out.base.resize(size_t(model_.hidden), 1.0f);
    for (float& base : out.base) base *= spec.base_scale;
    out.scale = spec.scale;
    out.base_is_normed = spec.base_is_normed;
    out.deferred = spec.deferred;
    place_ = next_place_;
    next_place_ += places_of(spec.op);
    if (const auto* attention = std::get_if<AttentionSpec>(&spec.op))
      return build(*attention, out.op.emplace<Attention>());
    if (const auto* latent = std::get_if<LatentAttentionSpec>(&spec.op))
      return build(*latent, out.op.emplace<LatentAttention>());
    if (const auto* moe = std::get_if<MoeSpec>(&spec.op)) return build(*moe, out.op.emplace<FeedForward>());
    if (const auto* ffn = std::get_if<FfnSpec>(&spec.op)) return build_shared(*ffn, out.op.emplace<FeedForward>());
    return fail(ErrorCode::kInternal, "the cpu backend was given a sublayer that it lacks.");
  }

 private:
  Result<void> build(const AttentionSpec& spec, Attention& out) {
    out.place = place_;
    out.keys = {.heads = spec.heads,
                .kv_heads = spec.kv_heads,
                .head_dim = spec.head_dim,
                .scale = spec.scale,
                .window = spec.sliding_window,
                .chunk = spec.chunk};
    out.clip = spec.clip_qkv;
    out.qk_norm = spec.qk_norm;
    out.temperature_floor = spec.temperature_floor;
    out.temperature_scale = spec.temperature_scale;
    out.rope = rope_index(spec.rope, model_.ropes);
    SY_CHECK(load_.matrix(spec.q, out.q));
    SY_CHECK(load_.matrix(spec.k, out.k));
    SY_CHECK(load_.matrix(spec.v, out.v));
    SY_CHECK(load_.matrix(spec.o, out.o));
    SY_CHECK(load_.matrix(spec.gate, out.gate));
    SY_CHECK(load_.vector(spec.q_bias, out.q_bias));
    SY_CHECK(load_.vector(spec.k_bias, out.k_bias));
    SY_CHECK(load_.vector(spec.v_bias, out.v_bias));
    SY_CHECK(load_.vector(spec.o_bias, out.o_bias));
    SY_CHECK(load_.vector(spec.sinks, out.keys.sinks));
    add_cache(out.keys);
    return build_qk_norm(spec, out);
  }

  Result<void> build_qk_norm(const AttentionSpec& spec, Attention& out) {
    if (spec.qk_norm == QkNorm::kNone) return {};
    if (spec.qk_norm == QkNorm::kL2PostRope) {
      const std::vector<float> ones(size_t(spec.head_dim), 1.0f);
      out.q_norm = {Norm::Kind::kRms, spec.q_norm.eps, ones, {}};
      out.k_norm = {Norm::Kind::kRms, spec.k_norm.eps, ones, {}};
      return {};
    }
    const bool whole = spec.qk_norm == QkNorm::kFullVector;
    SY_CHECK(load_.norm(spec.q_norm, whole ? out.keys.query_cols() : spec.head_dim, out.q_norm));
    return load_.norm(spec.k_norm, whole ? out.keys.key_cols() : spec.head_dim, out.k_norm);
  }

  Result<void> build(const LatentAttentionSpec& spec, LatentAttention& out) {
    out.place = place_;
    out.keys = {.heads = spec.heads,
                .kv_heads = 1,
                .head_dim = spec.kv_rank + spec.rope_dim,
                .latent = spec.kv_rank,
                .scale = spec.scale};
    out.nope_dim = spec.nope_dim;
    out.rope_dim = spec.rope_dim;
    out.value_dim = spec.value_dim;
    out.query_rank = static_cast<int>(spec.q_a.rows);
    out.q_scale = spec.q_scale;
    out.latent_scale = spec.latent_scale;
    out.rope = rope_index(spec.rope, model_.ropes);
    SY_CHECK(load_.matrix(spec.q_a, out.q_a));
    SY_CHECK(load_.matrix(spec.q, out.q));
    SY_CHECK(load_.matrix(spec.kv_a, out.kv_a));
    SY_CHECK(load_.plain_matrix(spec.kv_b, out.kv_b));
    SY_CHECK(load_.matrix(spec.o, out.o));
    SY_CHECK(load_.vector(spec.q_a_bias, out.q_a_bias));
    SY_CHECK(load_.vector(spec.kv_a_bias, out.kv_a_bias));
    SY_CHECK(load_.vector(spec.o_bias, out.o_bias));
    out.absorb = load_.transposed_blocks(out.kv_b, spec.heads, spec.nope_dim, spec.nope_dim + spec.value_dim);
    add_cache(out.keys);
    SY_CHECK(load_.norm(spec.q_a_norm, out.query_rank, out.q_a_norm));
    return load_.norm(spec.kv_a_norm, spec.kv_rank, out.kv_a_norm);
  }

  Result<void> build(const MoeSpec& spec, FeedForward& out) {
    out.row = row_++;
    out.router = spec.router;
    out.form = form(spec.expert);
    out.experts.resize(spec.experts.size());
    SY_CHECK(load_.plain_matrix(spec.router_weight, out.router_weight));
    SY_CHECK(load_.vector(spec.router_bias, out.router_bias));
    SY_CHECK(load_.vector(spec.select_bias, out.select_bias));
    for (size_t e = 0; e < spec.experts.size(); ++e) SY_CHECK(build(spec.experts[e], out.experts[e]));
    if (spec.shared) SY_CHECK(build_shared(*spec.shared, out));
    SY_CHECK(load_.plain_matrix(spec.shared_gate, out.shared_gate));
    return load_.vector(spec.output_bias, out.output_bias);
  }

  Result<void> build_shared(const FfnSpec& spec, FeedForward& out) {
    out.shared_form = form(spec);
    return build(spec.weights, out.shared.emplace());
  }

  Result<void> build(const FfnWeights& spec, Expert& out) {
    out.place = place_;
    place_ += kFfnPlaces;
    SY_CHECK(load_.matrix(spec.gate, out.gate));
    SY_CHECK(load_.matrix(spec.up, out.up));
    SY_CHECK(load_.matrix(spec.down, out.down));
    if (spec.down_bias) out.bias_type = exact_dtype(spec.down_bias);
    SY_CHECK(load_.vector(spec.gate_bias, out.gate_bias));
    SY_CHECK(load_.vector(spec.up_bias, out.up_bias));
    return load_.vector(spec.down_bias, out.down_bias);
  }

  void add_cache(KeyShape& keys) {
    keys.cache = static_cast<int>(model_.caches.size());
    model_.caches.push_back(keys);
  }

  // Columns over their length are inputs over it: 1 / (|column| + 1e-7) (families.md 1.26).
  void normalise_head() {
    const Matrix& head = model_.lm_head;
    std::vector<double> squares(size_t(head.cols), 0.0);
    std::vector<float> row(size_t(head.cols));
    for (int64_t r = 0; r < head.rows; ++r) {
      kernels(Isa::kPortable).load_row(head, r, row.data());
      for (size_t c = 0; c < row.size(); ++c) squares[c] += double(row[c]) * row[c];
    }
    for (const double square : squares)
      model_.lm_head_column.push_back(static_cast<float>(1 / (std::sqrt(square) + 1e-7)));
  }

  Loader load_;
  Model& model_;
  int row_ = 0;
  int place_ = 0, next_place_ = 0;  // of the linear at hand; of the next sublayer
};

}  // namespace

Result<Model> load_model(const ModelPlan& plan, const WeightStore& weights, Task* task) {
  Model model;
  model.hidden = plan.hidden;
  model.vocab = plan.vocab;
  model.context = plan.context;
  model.embedding_scale = plan.embedding_scale;
  model.logit_scale = plan.logit_scale;
  Builder builder(weights, model);
  SY_CHECK(builder.head(plan));
  model.layers.resize(plan.layers.size());
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "preparing the weights was stopped.");
    if (task) task->report(double(i) / double(plan.layers.size()), "Preparing weights");
    model.layers[i].sublayers.resize(plan.layers[i].sublayers.size());
    for (size_t s = 0; s < plan.layers[i].sublayers.size(); ++s)
      SY_CHECK(builder.sublayer(plan.layers[i].sublayers[s], model.layers[i].sublayers[s]));
  }
  return model;
}

}  // namespace switchyard::cpu

// See model.h.
#include "engine/backend/cpu/model.h"

#include <algorithm>
#include <optional>

#include "engine/backend/cpu/isa.h"
#include "engine/routing/decision.h"

namespace switchyard::cpu {
namespace {

std::optional<Stored> stored(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Stored::kF32;
    case DType::kBF16:
      return Stored::kBF16;
    case DType::kF16:
      return Stored::kF16;
    default:
      return std::nullopt;
  }
}

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

class Loader {
 public:
  explicit Loader(const WeightStore& weights) : weights_(weights) {}

  Result<void> matrix(const TensorRef& ref, Matrix& out) const {
    SY_TRY(const TensorView view, weights_.view(ref));
    const auto type = stored(view.dtype);
    if (!type)
      return fail(ErrorCode::kInternal,
                  "the cpu backend does not read " + std::string(switchyard::name(view.dtype)) + ".", ref.name);
    out = {reinterpret_cast<const unsigned char*>(view.data), *type, view.rows, view.cols};
    return {};
  }

  Result<void> vector(const TensorRef& ref, std::vector<float>& out) const {
    if (!ref) return {};
    Matrix stored_vector;
    SY_CHECK(matrix(ref, stored_vector));
    out.resize(size_t(stored_vector.rows * stored_vector.cols));
    kernels(Isa::kPortable).load(stored_vector.data, stored_vector.type, out.data(), int64_t(out.size()));
    return {};
  }

  Result<void> norm(const NormSpec& spec, Norm& out) const {
    out.eps = spec.eps;
    SY_CHECK(vector(spec.weight, out.weight));
    if (spec.kind == NormKind::kRmsOnePlus)
      for (float& w : out.weight) w += 1.0f;
    return {};
  }

  Result<void> glu(const FfnWeights& spec, Glu& out) const {
    SY_CHECK(matrix(spec.gate, out.gate));
    SY_CHECK(matrix(spec.up, out.up));
    return matrix(spec.down, out.down);
  }

  Result<void> attention(const AttentionSpec& spec, Attention& out) const {
    out.heads = spec.heads;
    out.kv_heads = spec.kv_heads;
    out.head_dim = spec.head_dim;
    out.scale = spec.scale;
    out.clip = spec.clip_qkv;
    out.qk_norm = spec.qk_norm;
    out.window = spec.sliding_window;
    SY_CHECK(matrix(spec.q, out.q));
    SY_CHECK(matrix(spec.k, out.k));
    SY_CHECK(matrix(spec.v, out.v));
    SY_CHECK(matrix(spec.o, out.o));
    SY_CHECK(vector(spec.q_bias, out.q_bias));
    SY_CHECK(vector(spec.k_bias, out.k_bias));
    SY_CHECK(vector(spec.v_bias, out.v_bias));
    SY_CHECK(vector(spec.o_bias, out.o_bias));
    if (spec.qk_norm == QkNorm::kNone) return {};
    SY_CHECK(norm(spec.q_norm, out.q_norm));
    return norm(spec.k_norm, out.k_norm);
  }

  Result<void> routed(const MoeSpec& spec, int row, FeedForward& out) const {
    out.row = row;
    out.router = spec.router;
    out.unit = unit(spec.expert.activation);
    out.width = spec.expert.width;
    out.experts.resize(spec.experts.size());
    SY_CHECK(matrix(spec.router_weight, out.router_weight));
    SY_CHECK(vector(spec.router_bias, out.router_bias));
    SY_CHECK(vector(spec.select_bias, out.select_bias));
    for (size_t e = 0; e < spec.experts.size(); ++e) SY_CHECK(glu(spec.experts[e], out.experts[e]));
    return {};
  }

  Result<void> dense(const FfnSpec& spec, FeedForward& out) const {
    out.unit = unit(spec.activation);
    out.width = spec.width;
    out.experts.resize(1);
    return glu(spec.weights, out.experts[0]);
  }

 private:
  const WeightStore& weights_;
};

// Index of an equal rope, which is added where there is none.
int rope_index(const RopeSpec& spec, std::vector<RopeSpec>& ropes) {
  if (spec.kind == RopeKind::kNone || spec.dims == 0) return -1;
  const auto same = [&](const RopeSpec& other) {
    return other.kind == spec.kind && other.dims == spec.dims && other.inv_freq == spec.inv_freq &&
           other.attention_factor == spec.attention_factor;
  };
  const auto found = std::find_if(ropes.begin(), ropes.end(), same);
  if (found == ropes.end()) ropes.push_back(spec);
  return static_cast<int>(std::find_if(ropes.begin(), ropes.end(), same) - ropes.begin());
}

std::string missing_of(const AttentionSpec& a) {
  if (a.q_norm.kind == NormKind::kLayerNorm || a.k_norm.kind == NormKind::kLayerNorm)
    return "layer norm with mean and bias (query or key norm)";
  if (a.qk_norm == QkNorm::kPerHeadPostRope || a.qk_norm == QkNorm::kL2PostRope) return "query and key norm after rope";
  if (a.gate) return "attention with an output gate";
  if (a.chunk > 0) return "a chunked mask";
  if (a.sinks) return "attention sinks";
  if (a.temperature_floor > 0) return "query temperature by position";
  if (!a.causal || a.cross || a.position_bias) return "encoder or cross-attention";
  if (a.mask_a) return "a dynamic mask";
  return {};
}

std::string missing_of(const FfnShape& shape, const FfnWeights& weights) {
  if (shape.kind != FfnKind::kGlu) return "this kind of feed-forward block";
  return weights.gate_bias || weights.up_bias || weights.down_bias ? "biases of a feed-forward block" : "";
}

std::string missing_of(const Sublayer& sublayer) {
  if (sublayer.norm.kind == NormKind::kLayerNorm) return "layer norm with mean and bias";
  if (sublayer.norm.kind == NormKind::kNone || sublayer.post_norm.kind != NormKind::kNone) return "norms after a block";
  if (sublayer.scale != 1 || sublayer.base_scale != 1 || sublayer.base_is_normed || sublayer.base_weight ||
      sublayer.deferred)
    return "scaled or deferred residuals";
  if (const auto* attention = std::get_if<AttentionSpec>(&sublayer.op)) return missing_of(*attention);
  if (const auto* ffn = std::get_if<FfnSpec>(&sublayer.op)) return missing_of(*ffn, ffn->weights);
  if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op)) {
    if (moe->shared) return "shared experts";
    if (moe->output_bias || moe->identity_experts > 0) return "identity experts or an output bias";
    if (std::string missing = unroutable(moe->router); !missing.empty()) return missing;
    return moe->experts.empty() ? "" : missing_of(moe->expert, moe->experts.front());
  }
  return "this mixer";
}

std::string missing_type(const TensorRef& ref) {
  if (!ref.in_place()) return "strided or quantised weights (" + ref.name + ")";
  if (stored(ref.dtype)) return {};
  return std::string(switchyard::name(ref.dtype)) + " weights (" + ref.name + ")";
}

}  // namespace

std::string missing_kind(const ModelPlan& plan) {
  if (plan.encoder_layers > 0) return "an encoder";
  if (plan.embedding_scale != 1 || plan.logit_scale != 1) return "multipliers of the embedding or the logits";
  if (plan.lm_head_bias || plan.normalised_head) return "a head with bias or norm";
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const std::string where = " (layer " + std::to_string(i) + ")";
    if (layer.sublayers.size() != 2 || !layer.find<AttentionSpec>() ||
        !(layer.find<MoeSpec>() || layer.find<FfnSpec>()))
      return "the sublayers" + where;
    for (const Sublayer& sublayer : layer.sublayers)
      if (std::string missing = missing_of(sublayer); !missing.empty()) return missing + where;
  }
  if (plan.final_norm.kind == NormKind::kLayerNorm) return "layer norm with mean and bias (final norm)";
  std::string missing;
  const auto check = [&](const TensorRef& ref) {
    if (missing.empty()) missing = missing_type(ref);
  };
  check(plan.embedding);
  check(plan.lm_head);
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) for_each_tensor(sublayer, check);
  return missing;
}

Result<Model> load_model(const ModelPlan& plan, const WeightStore& weights) {
  const Loader load(weights);
  Model model;
  model.hidden = plan.hidden;
  model.vocab = plan.vocab;
  model.context = plan.context;
  SY_CHECK(load.matrix(plan.embedding, model.embedding));
  SY_CHECK(load.matrix(plan.lm_head, model.lm_head));
  SY_CHECK(load.norm(plan.final_norm, model.final_norm));
  model.layers.resize(plan.layers.size());
  int row = 0;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& spec = plan.layers[i];
    Layer& layer = model.layers[i];
    SY_CHECK(load.norm(spec.sublayers[0].norm, layer.attention_norm));
    SY_CHECK(load.norm(spec.sublayers[1].norm, layer.ffn_norm));
    SY_CHECK(load.attention(spec.get<AttentionSpec>(), layer.attention));
    layer.attention.rope = rope_index(spec.get<AttentionSpec>().rope, model.ropes);
    if (const MoeSpec* moe = spec.find<MoeSpec>())
      SY_CHECK(load.routed(*moe, row++, layer.ffn));
    else
      SY_CHECK(load.dense(spec.get<FfnSpec>(), layer.ffn));
  }
  return model;
}

}  // namespace switchyard::cpu

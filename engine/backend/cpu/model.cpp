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

  Result<void> glu(const GluWeights& spec, Glu& out) const {
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
    out.unit = unit(spec.activation);
    out.width = spec.width;
    out.experts.resize(spec.experts.size());
    SY_CHECK(matrix(spec.router_weight, out.router_weight));
    SY_CHECK(vector(spec.router_bias, out.router_bias));
    SY_CHECK(vector(spec.select_bias, out.select_bias));
    for (size_t e = 0; e < spec.experts.size(); ++e) SY_CHECK(glu(spec.experts[e], out.experts[e]));
    return {};
  }

  Result<void> dense(const GluSpec& spec, FeedForward& out) const {
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

// The first layer norm of the plan, as "layer 3, attention norm"; empty: none.
std::string first_layer_norm(const ModelPlan& plan) {
  const auto is = [](const NormSpec& norm) { return norm.kind == NormKind::kLayerNorm; };
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const std::string where = "layer " + std::to_string(i) + ", ";
    if (is(layer.attention_norm)) return where + "attention norm";
    if (is(layer.ffn_norm)) return where + "feed-forward norm";
    if (layer.attention.qk_norm == QkNorm::kNone) continue;
    if (is(layer.attention.q_norm) || is(layer.attention.k_norm)) return where + "query or key norm";
  }
  return is(plan.final_norm) ? "final norm" : "";
}

std::string missing_type(const TensorRef& ref) {
  if (!ref || stored(ref.dtype)) return {};
  return std::string(switchyard::name(ref.dtype)) + " weights (" + ref.name + ")";
}

}  // namespace

std::string missing_kind(const ModelPlan& plan) {
  if (const std::string where = first_layer_norm(plan); !where.empty())
    return "layer norm with mean and bias (" + where + ")";
  std::vector<const TensorRef*> matrices{&plan.embedding, &plan.lm_head};
  for (const LayerPlan& layer : plan.layers) {
    const AttentionSpec& attention = layer.attention;
    matrices.insert(matrices.end(), {&attention.q, &attention.k, &attention.v, &attention.o});
    if (const MoeSpec* moe = layer.moe()) {
      if (std::string missing = unroutable(moe->router); !missing.empty()) return missing;
      matrices.push_back(&moe->router_weight);
      for (const GluWeights& expert : moe->experts)
        matrices.insert(matrices.end(), {&expert.gate, &expert.up, &expert.down});
    } else {
      const GluWeights& glu = std::get<GluSpec>(layer.ffn).weights;
      matrices.insert(matrices.end(), {&glu.gate, &glu.up, &glu.down});
    }
  }
  for (const TensorRef* ref : matrices)
    if (std::string missing = missing_type(*ref); !missing.empty()) return missing;
  return {};
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
    SY_CHECK(load.norm(spec.attention_norm, layer.attention_norm));
    SY_CHECK(load.norm(spec.ffn_norm, layer.ffn_norm));
    SY_CHECK(load.attention(spec.attention, layer.attention));
    layer.attention.rope = rope_index(spec.attention.rope, model.ropes);
    if (const MoeSpec* moe = spec.moe())
      SY_CHECK(load.routed(*moe, row++, layer.ffn));
    else
      SY_CHECK(load.dense(std::get<GluSpec>(spec.ffn), layer.ffn));
  }
  return model;
}

}  // namespace switchyard::cpu

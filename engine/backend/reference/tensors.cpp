// See tensors.h.
#include "engine/backend/reference/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <string>

namespace switchyard::reference {
namespace {

class Loader {
 public:
  Loader(const ModelPlan& plan, const WeightStore& weights, Task* task) : plan_(plan), weights_(weights), task_(task) {}

  Result<ModelTensors> load() {
    ModelTensors out;
    SY_CHECK(matrix(plan_.embedding, out.embedding));
    if (plan_.tied) {
      out.lm_head = out.embedding;
    } else {
      SY_CHECK(matrix(plan_.lm_head, out.lm_head));
    }
    SY_CHECK(norm(plan_.final_norm, out.final_norm));
    out.layers.resize(plan_.layers.size());
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      if (task_) task_->report(double(i) / double(plan_.layers.size()), "Copying weights to fp32");
      SY_CHECK(layer(plan_.layers[i], out.layers[i]));
    }
    SY_CHECK(weights_.check_unchanged());
    if (task_) task_->report(1, "Weights copied");
    return out;
  }

 private:
  // Stored elements may be unaligned, so they are copied before they are converted.
  Result<void> matrix(const TensorRef& ref, at::Tensor& out) {
    if (!ref) return {};
    if (task_ && task_->cancelled()) return fail(ErrorCode::kCancelled, "Loading was stopped.");
    SY_TRY(const TensorView view, weights_.view(ref));
    at::ScalarType type;
    switch (view.dtype) {
      case DType::kF32:
        type = at::kFloat;
        break;
      case DType::kBF16:
        type = at::kBFloat16;
        break;
      case DType::kF16:
        type = at::kHalf;
        break;
      default:
        return fail(ErrorCode::kMalformed, "the reference backend reads F32, BF16 and F16 weights, not this type.",
                    ref.name);
    }
    at::Tensor stored = at::empty({view.rows, view.cols}, at::TensorOptions().dtype(type));
    std::memcpy(stored.data_ptr(), view.data, stored.nbytes());
    out = stored.to(at::kFloat);
    return {};
  }

  Result<void> vector(const TensorRef& ref, at::Tensor& out) {
    SY_CHECK(matrix(ref, out));
    if (out.defined()) out = out.reshape({-1});
    return {};
  }

  Result<void> norm(const NormSpec& spec, NormTensors& out) {
    SY_CHECK(vector(spec.weight, out.weight));
    return vector(spec.bias, out.bias);
  }

  Result<void> glu(const GluWeights& spec, GluTensors& out) {
    SY_CHECK(matrix(spec.gate, out.gate));
    SY_CHECK(matrix(spec.up, out.up));
    return matrix(spec.down, out.down);
  }

  Result<void> attention(const AttentionSpec& spec, AttentionTensors& out) {
    SY_CHECK(matrix(spec.q, out.q));
    SY_CHECK(matrix(spec.k, out.k));
    SY_CHECK(matrix(spec.v, out.v));
    SY_CHECK(matrix(spec.o, out.o));
    SY_CHECK(vector(spec.q_bias, out.q_bias));
    SY_CHECK(vector(spec.k_bias, out.k_bias));
    SY_CHECK(vector(spec.v_bias, out.v_bias));
    SY_CHECK(vector(spec.o_bias, out.o_bias));
    if (spec.qk_norm != QkNorm::kNone) {
      SY_CHECK(norm(spec.q_norm, out.q_norm));
      SY_CHECK(norm(spec.k_norm, out.k_norm));
    }
    const std::vector<float>& inv_freq = spec.rope.inv_freq;
    out.inv_freq = at::from_blob(const_cast<float*>(inv_freq.data()), {int64_t(inv_freq.size())}).clone();
    return {};
  }

  Result<void> moe(const MoeSpec& spec, MoeTensors& out) {
    SY_CHECK(matrix(spec.router_weight, out.router));
    SY_CHECK(vector(spec.router_bias, out.router_bias));
    SY_CHECK(vector(spec.select_bias, out.select_bias));
    out.experts.resize(spec.experts.size());
    for (size_t e = 0; e < spec.experts.size(); ++e) SY_CHECK(glu(spec.experts[e], out.experts[e]));
    return {};
  }

  Result<void> layer(const LayerPlan& spec, LayerTensors& out) {
    SY_CHECK(norm(spec.attention_norm, out.attention_norm));
    SY_CHECK(attention(spec.attention, out.attention));
    SY_CHECK(norm(spec.ffn_norm, out.ffn_norm));
    if (const MoeSpec* experts = spec.moe()) return moe(*experts, out.ffn.emplace<MoeTensors>());
    return glu(std::get<GluSpec>(spec.ffn).weights, out.ffn.emplace<GluTensors>());
  }

  const ModelPlan& plan_;
  const WeightStore& weights_;
  Task* task_;
};

}  // namespace

Result<ModelTensors> load_tensors(const ModelPlan& plan, const WeightStore& weights, Task* task) {
  return Loader(plan, weights, task).load();
}

}  // namespace switchyard::reference

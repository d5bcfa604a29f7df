// Parts that families share.
#include "engine/model/families/blocks.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/model/rope.h"

namespace switchyard {
namespace {

std::string equation(std::string_view key, int value) {
  return fmt::format("{} = {}", key, value);
}

void read_token_ids(PlanBuilder& builder, ModelPlan& plan) {
  if (const auto eos = builder.config().find("eos_token_id"))
    plan.eos_ids = eos->json().is_array()
                       ? builder.list_or_empty("eos_token_id", plan.vocab - 1)
                       : std::vector<TokenId>{builder.count_or("eos_token_id", 0, plan.vocab - 1, 0)};
  if (builder.config().has("bos_token_id")) plan.bos_id = builder.count_or("bos_token_id", 0, plan.vocab - 1, 0);
}

std::vector<FfnWeights> separate_experts(PlanBuilder& builder, const std::string& module, const MoeNames& names,
                                         int experts, int hidden, int width) {
  std::vector<FfnWeights> all;
  const std::string why = equation(names.width_key, width);
  for (int e = 0; e < experts && !builder.failed(); ++e) {
    const std::string prefix = fmt::format("{}experts.{}.", module, e);
    all.push_back({.gate = builder.matrix(fmt::format("{}{}.weight", prefix, names.gate), width, hidden, why),
                   .up = builder.matrix(fmt::format("{}{}.weight", prefix, names.up), width, hidden, why),
                   .down = builder.matrix(fmt::format("{}{}.weight", prefix, names.down), hidden, width, why)});
  }
  return all;
}

std::vector<FfnWeights> packed_experts(PlanBuilder& builder, const std::string& module, const MoeNames& names,
                                       int experts, int hidden, int width) {
  const std::string why = equation(names.experts_key, experts) + ", " + equation(names.width_key, width);
  const TensorRef gate_up = builder.packed(module + "experts.gate_up_proj", experts, 2 * int64_t{width}, hidden, why);
  const TensorRef down = builder.packed(module + "experts.down_proj", experts, hidden, width, why);
  std::vector<FfnWeights> all;
  const int64_t matrix = int64_t{width} * hidden;
  for (int e = 0; e < experts && !builder.failed(); ++e)
    all.push_back({.gate = PlanBuilder::part(gate_up, 2 * e * matrix, width, hidden),
                   .up = PlanBuilder::part(gate_up, (2 * e + 1) * matrix, width, hidden),
                   .down = PlanBuilder::part(down, e * matrix, hidden, width)});
  return all;
}

}  // namespace

std::string layer_prefix(size_t layer) {
  return fmt::format("model.layers.{}.", layer);
}

NormSpec rms_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps) {
  return {.kind = NormKind::kRms, .weight = builder.vector(name + ".weight", size), .eps = eps};
}

ModelPlan llama_frame(PlanBuilder& builder, float default_eps) {
  ModelPlan plan;
  plan.hidden = builder.count({"hidden_size"}, kMaxHidden);
  plan.vocab = builder.count({"vocab_size"}, kMaxVocab);
  plan.context = builder.count({"max_position_embeddings"}, kMaxContext);
  plan.layers.resize(builder.count({"num_hidden_layers"}, kMaxLayers));
  read_token_ids(builder, plan);

  const std::string why = equation("vocab_size", plan.vocab);
  plan.embedding = builder.matrix("model.embed_tokens.weight", plan.vocab, plan.hidden, why);
  plan.dtype = plan.embedding.dtype;
  plan.final_norm = rms_norm(builder, "model.norm", plan.hidden, builder.number_or("rms_norm_eps", default_eps, 0));
  // The key is written unless it equals a default; then the absence of lm_head says it.
  plan.tied = builder.flag_or("tie_word_embeddings", !builder.has("lm_head.weight"));
  plan.lm_head = plan.tied
                     ? plan.embedding
                     : builder.matrix("lm_head.weight", plan.vocab, plan.hidden, why + ", tie_word_embeddings = false");
  return plan;
}

AttentionSpec gqa_shape(PlanBuilder& builder, ModelPlan& plan, double default_theta) {
  AttentionSpec shape;
  shape.heads = builder.count({"num_attention_heads"}, kMaxHidden);
  shape.kv_heads = builder.count_or("num_key_value_heads", shape.heads, kMaxHidden);
  shape.head_dim = builder.count_or("head_dim", std::max(plan.hidden / shape.heads, 1), kMaxHidden);
  if (shape.heads % shape.kv_heads != 0)
    builder.refuse_config(fmt::format("has num_attention_heads = {}, not a multiple of num_key_value_heads = {}",
                                      shape.heads, shape.kv_heads));
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  const Rope rope =
      builder.take(read_rope(builder.config(), RopeKind::kHalf, shape.head_dim, plan.context, default_theta), Rope{});
  if (!builder.failed() && rope.spec.dims != shape.head_dim)
    builder.refuse_config(fmt::format("rotates {} of {} dimensions of a head, which this family does not do",
                                      rope.spec.dims, shape.head_dim));
  shape.rope = rope.spec;
  plan.context = rope.context;
  return shape;
}

AttentionSpec gqa(PlanBuilder& builder, AttentionSpec shape, const std::string& prefix, int hidden,
                  const GqaTensors& tensors) {
  const int64_t q_size = int64_t{shape.heads} * shape.head_dim, kv_size = int64_t{shape.kv_heads} * shape.head_dim;
  const std::string q_why = fmt::format("num_attention_heads = {}, head_dim = {}", shape.heads, shape.head_dim);
  const std::string kv_why = fmt::format("num_key_value_heads = {}, head_dim = {}", shape.kv_heads, shape.head_dim);
  shape.q = builder.matrix(prefix + "q_proj.weight", q_size, hidden, q_why);
  shape.k = builder.matrix(prefix + "k_proj.weight", kv_size, hidden, kv_why);
  shape.v = builder.matrix(prefix + "v_proj.weight", kv_size, hidden, kv_why);
  shape.o = builder.matrix(prefix + "o_proj.weight", hidden, q_size, q_why);
  shape.q_bias = builder.vector_if(tensors.qkv_bias, prefix + "q_proj.bias", q_size);
  shape.k_bias = builder.vector_if(tensors.qkv_bias, prefix + "k_proj.bias", kv_size);
  shape.v_bias = builder.vector_if(tensors.qkv_bias, prefix + "v_proj.bias", kv_size);
  shape.o_bias = builder.vector_if(tensors.o_bias, prefix + "o_proj.bias", hidden);
  if (shape.qk_norm == QkNorm::kNone) return shape;
  const bool per_head = shape.qk_norm == QkNorm::kPerHead;
  shape.q_norm = rms_norm(builder, prefix + "q_norm", per_head ? shape.head_dim : q_size, tensors.eps);
  shape.k_norm = rms_norm(builder, prefix + "k_norm", per_head ? shape.head_dim : kv_size, tensors.eps);
  return shape;
}

FfnSpec glu(PlanBuilder& builder, const std::string& prefix, int hidden, int width, std::string_view width_key) {
  const std::string why = equation(width_key, width);
  return {{.activation = builder.activation(), .width = width},
          {.gate = builder.matrix(prefix + "gate_proj.weight", width, hidden, why),
           .up = builder.matrix(prefix + "up_proj.weight", width, hidden, why),
           .down = builder.matrix(prefix + "down_proj.weight", hidden, width, why)}};
}

MoeSpec moe(PlanBuilder& builder, const RouterSpec& router, const std::string& prefix, const MoeNames& names,
            int hidden, int width) {
  const bool packed = builder.has(fmt::format("{}{}.experts.gate_up_proj", prefix, kPackedModule));
  const std::string module = fmt::format("{}{}.", prefix, packed ? kPackedModule : names.module);
  MoeSpec spec{{.router = router}, {.activation = builder.activation(), .width = width}};
  spec.router_weight =
      builder.matrix(module + "gate.weight", router.experts, hidden, equation(names.experts_key, router.experts));
  spec.experts = (packed ? packed_experts : separate_experts)(builder, module, names, router.experts, hidden, width);
  return spec;
}

RouterSpec router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys, size_t layers) {
  RouterSpec router;
  router.experts = builder.count(experts_keys, kMaxExperts);
  router.experts_per_token = builder.count({"num_experts_per_tok"}, kMaxExperts);
  if (router.experts_per_token > router.experts)
    builder.refuse_config(fmt::format("has num_experts_per_tok = {}, more than its {} experts",
                                      router.experts_per_token, router.experts));
  if (layers * router.experts > static_cast<size_t>(kMaxExpertsInAll))
    builder.refuse_config(fmt::format("has {} layers of {} experts, the limit is {} experts in all", layers,
                                      router.experts, kMaxExpertsInAll));
  return router;
}

}  // namespace switchyard

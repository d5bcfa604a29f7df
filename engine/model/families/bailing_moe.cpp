// Ling (bailing_moe) and Ling 2.0 (bailing_moe_v2; specs/families.md, section 1.26): fused q, k, v; softmax or sigmoid
// router; shared experts. No transformers class: written from the page. Data only; called while a checkpoint opens.
#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

// [q rows, k rows, v rows] of one tensor.
AttentionSpec fused_attention(PlanBuilder& builder, AttentionSpec shape, const std::string& prefix, int hidden,
                              bool qkv_bias, bool o_bias, float eps) {
  const int64_t q = int64_t{shape.heads} * shape.head_dim, kv = int64_t{shape.kv_heads} * shape.head_dim;
  const TensorRef all = builder.matrix(prefix + "query_key_value.weight", q + 2 * kv, hidden,
                                       "num_attention_heads, num_key_value_heads, head_dim");
  shape.q = PlanBuilder::part(all, 0, q, hidden);
  shape.k = PlanBuilder::part(all, q * hidden, kv, hidden);
  shape.v = PlanBuilder::part(all, (q + kv) * hidden, kv, hidden);
  if (qkv_bias) {
    const TensorRef bias = builder.vector(prefix + "query_key_value.bias", q + 2 * kv);
    shape.q_bias = PlanBuilder::part(bias, 0, 1, q);
    shape.k_bias = PlanBuilder::part(bias, q, 1, kv);
    shape.v_bias = PlanBuilder::part(bias, q + kv, 1, kv);
  }
  shape.o = builder.matrix(prefix + "dense.weight", hidden, q, "num_attention_heads, head_dim");
  shape.o_bias = builder.vector_if(o_bias, prefix + "dense.bias", hidden);
  if (shape.qk_norm == QkNorm::kNone) return shape;
  shape.q_norm = rms_norm(builder, prefix + "query_layernorm", shape.head_dim, eps);
  shape.k_norm = rms_norm(builder, prefix + "key_layernorm", shape.head_dim, eps);
  return shape;
}

// Ling: softmax, top-k, renormalised iff k > 1 and norm_topk_prob. Ling 2.0: DeepSeek-V3's rule.
RouterSpec bailing_router(PlanBuilder& builder, size_t layers, bool v2) {
  const std::string score =
      builder.take(builder.config().text_or("score_function", v2 ? "sigmoid" : "softmax"), std::string("softmax"));
  if (score == "sigmoid") {
    RouterSpec spec = grouped_sigmoid_router(builder, {"num_experts"}, layers, {});
    spec.has_select_bias = builder.flag_or("moe_router_enable_expert_bias", true);
    return spec;
  }
  if (score != "softmax")
    builder.refuse_config(fmt::format("has score_function = {}, supported are softmax and sigmoid", quote(score)));
  RouterSpec spec = router(builder, {"num_experts"}, layers);
  if (spec.experts_per_token > 1 && builder.flag_or("norm_topk_prob", true)) spec.renorm = Renorm::kSum;
  return spec;
}

ModelPlan plan_bailing(PlanBuilder& builder, bool v2) {
  ModelPlan plan = llama_frame(builder, v2 ? 1e-6f : 1e-5f, {.embedding = "word_embeddings"});
  const float eps = plan.final_norm.eps;
  const bool o_bias = builder.flag_or("use_bias", false), qkv_bias = builder.flag_or("use_qkv_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = v2 ? 6e5 : 1e4, .partial = v2});
  if (builder.flag_or("use_qk_norm", v2)) shape.qk_norm = QkNorm::kPerHead;
  plan.normalised_head = builder.flag_or("norm_head", false);

  const RouterSpec spec = bailing_router(builder, plan.layers.size(), v2);
  MoeNames names = kSeparateExperts;
  names.select_bias = "gate.expert_bias";
  const DenseThenExperts ffn{
      .router = spec,
      .names = names,
      .width = builder.count({"moe_intermediate_size"}, kMaxHidden),
      .shared = builder.count_or("num_shared_experts", 0, kMaxExperts, 0),
      .shared_key = "num_shared_experts",
      .dense_layers = static_cast<size_t>(builder.count_or("first_k_dense_replace", 0, kMaxLayers, 0))};
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = fused_attention(builder, shape, prefix + "attention.", plan.hidden, qkv_bias, o_bias, eps)});
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = dense_or_experts(builder, ffn, n, prefix, plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace

ModelPlan plan_bailing_moe(PlanBuilder& builder) {
  return plan_bailing(builder, false);
}

ModelPlan plan_bailing_moe_v2(PlanBuilder& builder) {
  return plan_bailing(builder, true);
}

}  // namespace switchyard

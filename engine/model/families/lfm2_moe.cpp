// LFM2-MoE (specs/families.md, section 1.22): short convolutions and some attention layers; sigmoid scores selected
// with an optional bias, renormalised iff norm_topk_prob, scaled. Data only; called while a checkpoint opens.
#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-5f;

ShortConvSpec short_conv(PlanBuilder& builder, const std::string& prefix, int hidden, int kernel, bool bias) {
  ShortConvSpec spec{.kernel = kernel};
  spec.in = builder.matrix(prefix + "in_proj.weight", 3 * int64_t{hidden}, hidden);
  spec.in_bias = builder.vector_if(bias, prefix + "in_proj.bias", 3 * int64_t{hidden});
  spec.conv =
      PlanBuilder::part(builder.packed(prefix + "conv.weight", hidden, 1, kernel, "conv_L_cache"), 0, hidden, kernel);
  spec.conv_bias = builder.vector_if(bias, prefix + "conv.bias", hidden);
  spec.out = builder.matrix(prefix + "out_proj.weight", hidden, hidden);
  spec.out_bias = builder.vector_if(bias, prefix + "out_proj.bias", hidden);
  return spec;
}

FfnSpec dense(PlanBuilder& builder, const std::string& prefix, int hidden, int width) {
  const std::string_view why = "intermediate_size";
  return {{.activation = Activation::kSilu, .width = width},
          {.gate = builder.matrix(prefix + "w1.weight", width, hidden, why),
           .up = builder.matrix(prefix + "w3.weight", width, hidden, why),
           .down = builder.matrix(prefix + "w2.weight", hidden, width, why)}};
}

}  // namespace

ModelPlan plan_lfm2_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps, {.final_norm = "embedding_norm"});
  const float eps = plan.final_norm.eps = builder.number_or("norm_eps", kDefaultEps, 0);
  if (builder.config().has("tie_embedding") && builder.flag_or("tie_embedding", true) != plan.tied)
    builder.refuse_config("has a tie_embedding that contradicts tie_word_embeddings or lm_head.weight");
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e6});
  shape.qk_norm = QkNorm::kPerHead;
  const GqaTensors tensors{.eps = eps, .q_norm = "q_layernorm", .k_norm = "k_layernorm", .o = "out_proj"};
  const int kernel = builder.count_or("conv_L_cache", 3, kMaxHidden);
  const bool conv_bias = builder.flag_or("conv_bias", false);
  const std::vector<std::string> types = layer_types(builder, plan, [](size_t) { return "absent"; });

  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSigmoid;
  spec.has_select_bias = builder.flag_or("use_expert_bias", true);
  spec.renorm = builder.flag_or("norm_topk_prob", true) ? Renorm::kSumEps6 : Renorm::kNone;
  spec.scale = builder.number_or("routed_scaling_factor", 1, 0);
  const MoeNames names{.module = "feed_forward",
                       .gate = "w1",
                       .up = "w3",
                       .down = "w2",
                       .experts_key = "num_experts",
                       .width_key = "moe_intermediate_size",
                       .select_bias = "expert_bias",
                       .packed_module = "feed_forward"};
  const int width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int dense_width = builder.count({"intermediate_size"}, kMaxHidden);
  const auto first_moe = static_cast<size_t>(builder.count_or("num_dense_layers", 2, kMaxLayers, 0));

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    Sublayer mixer{.norm = rms_norm(builder, prefix + "operator_norm", plan.hidden, eps)};
    if (types[n] == "conv")
      mixer.op = short_conv(builder, prefix + "conv.", plan.hidden, kernel, conv_bias);
    else if (types[n] == kFullAttention)
      mixer.op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, tensors);
    else
      builder.refuse_config(
          fmt::format("has layer_types[{}] = {}, supported are conv and full_attention", n, quote(types[n])));
    layer.sublayers.push_back(std::move(mixer));
    Sublayer ffn{.norm = rms_norm(builder, prefix + "ffn_norm", plan.hidden, eps)};
    if (n < first_moe)
      ffn.op = dense(builder, prefix + "feed_forward.", plan.hidden, dense_width);
    else
      ffn.op = moe(builder, spec, prefix, names, plan.hidden, width);
    layer.sublayers.push_back(std::move(ffn));
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard

// OpenMoE (specs/families.md, section 1.14): a llama frame with unscaled attention and a doubly gated feed-forward
// block; every n-th layer has experts, of limited capacity, and then the dense block as a third sublayer. There is no
// transformers class: written from the page. Data only; called while a checkpoint opens.
#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;

FfnShape block_shape(int width) {
  return {.kind = FfnKind::kGluDouble, .width = width};
}

FfnSpec dense(PlanBuilder& builder, const std::string& prefix, int hidden, int width) {
  const std::string why = fmt::format("intermediate_size = {}", width);
  return {block_shape(width),
          {.gate = builder.matrix(prefix + "gate_proj.weight", 2 * int64_t{width}, hidden, why),
           .up = builder.matrix(prefix + "up_proj.weight", width, hidden, why),
           .down = builder.matrix(prefix + "down_proj.weight", hidden, width, why)}};
}

// Stored input first: wi_gate [E, hidden, 2 width], wi_up [E, hidden, width], wo [E, width, hidden].
MoeSpec experts(PlanBuilder& builder, const RouterSpec& router, const std::string& prefix, int hidden, int width) {
  const std::string why = fmt::format("num_experts = {}, intermediate_size = {}", router.experts, width);
  MoeSpec moe{{.router = router}, block_shape(width)};
  moe.router_weight = builder.matrix(prefix + "gate_weight", router.experts, hidden,
                                     fmt::format("num_experts = {}", router.experts));
  const int64_t count = router.experts, wide = 2 * int64_t{width};
  const TensorRef gate = builder.packed(prefix + "experts.wi_gate", count, hidden, wide, why);
  const TensorRef up = builder.packed(prefix + "experts.wi_up", count, hidden, width, why);
  const TensorRef down = builder.packed(prefix + "experts.wo", count, width, hidden, why);
  const auto turned = [](const TensorRef& all, int64_t expert, int64_t in, int64_t out) {
    return PlanBuilder::strided(all, expert * in * out, out, in, 1, out);
  };
  for (int e = 0; e < router.experts && !builder.failed(); ++e)
    moe.experts.push_back(
        {.gate = turned(gate, e, hidden, wide), .up = turned(up, e, hidden, width), .down = turned(down, e, width, hidden)});
  return moe;
}

RouterSpec read_router(PlanBuilder& builder, size_t layers) {
  RouterSpec spec = router(builder, {"num_experts"}, layers, {"router_topk"});
  if (!builder.flag_or("router_drop_tks", true)) return spec;
  spec.capacity = Capacity::kFactor;
  const auto factor = builder.config().find("router_capacity_factor_eval");
  spec.capacity_value = factor ? builder.take(factor->as_number(0, 1e6), 2.0) : 2.0;
  spec.capacity_min = builder.count_or("router_min_capacity", 4, kMaxContext);
  return spec;
}

}  // namespace

bool is_openmoe(const JsonView& config) {
  return config.has("num_experts") && config.has("moe_layer_interval");
}

ModelPlan plan_openmoe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const float eps = plan.final_norm.eps;
  const std::string activation =
      builder.take(builder.config().text_or("hidden_act", "swiglu"), std::string("swiglu"));
  if (activation != "swiglu" || !builder.flag_or("mlp_gated", true))
    builder.refuse_config(fmt::format("has hidden_act = {} and mlp_gated = {}, supported are swiglu and true",
                                      quote(activation), builder.flag_or("mlp_gated", true)));
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});
  shape.scale = 1;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  const auto interval = static_cast<size_t>(builder.count({"moe_layer_interval"}, kMaxLayers));
  const RouterSpec router = read_router(builder, plan.layers.size());

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    const auto norm = [&](const char* name) { return rms_norm(builder, prefix + name, plan.hidden, eps); };
    layer.sublayers.push_back(
        {.norm = norm("input_layernorm"), .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.eps = eps})});
    if ((n + 1) % interval != 0) {
      layer.sublayers.push_back(
          {.norm = norm("post_attention_layernorm"), .op = dense(builder, prefix + "mlp.", plan.hidden, width)});
      continue;
    }
    layer.sublayers.push_back({.norm = norm("post_attention_layernorm"),
                               .op = experts(builder, router, prefix + "mlp.", plan.hidden, width)});
    layer.sublayers.push_back(
        {.norm = norm("pre_extra_mlp_layernorm"), .op = dense(builder, prefix + "extra_mlp.", plan.hidden, width)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard

// JetMoE (specs/families.md, section 1.11): two routers a layer, one over query and output projections, one over
// feed-forward experts; softmax over the selected logits. Data only; called while a checkpoint opens.
#include <cmath>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/rope.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f, kLayerEps = 1e-6f;  // the layers' norms do not read rms_norm_eps
constexpr double kDefaultTheta = 1e4;

AttentionSpec read_shape(PlanBuilder& builder, ModelPlan& plan, const RouterSpec& router) {
  AttentionSpec shape;
  shape.kv_heads = builder.count_or("num_key_value_heads", 16, kMaxHidden);
  shape.head_dim = builder.count_or("kv_channels", 128, kMaxHidden);
  shape.heads = shape.kv_heads * router.experts_per_token;
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  const Rope rope = builder.take(
      read_rope(builder.config(), RopeKind::kHalf, shape.head_dim, plan.context, {.theta = kDefaultTheta}), Rope{});
  if (!builder.failed() && rope.spec.dims != shape.head_dim)
    builder.refuse_config("rotates a part of a head, which this family does not do");
  shape.rope = rope.spec;
  plan.context = rope.context;
  return shape;
}

MixtureAttentionSpec attention(PlanBuilder& builder, const RouterSpec& router, const AttentionSpec& shape,
                               const std::string& prefix, int hidden) {
  MixtureAttentionSpec mixer{{.router = router}, shape};
  const int64_t size = int64_t{shape.kv_heads} * shape.head_dim, matrix = size * hidden;
  const std::string module = prefix + "experts.";
  const TensorRef kv = builder.matrix(prefix + "kv_proj.weight", 2 * size, hidden, "num_key_value_heads, kv_channels");
  mixer.attention.k = PlanBuilder::part(kv, 0, size, hidden);
  mixer.attention.v = PlanBuilder::part(kv, matrix, size, hidden);
  mixer.router_weight = builder.matrix(module + "router.layer.weight", router.experts, hidden, "num_local_experts");
  const TensorRef q = builder.packed(module + "input_linear.weight", router.experts, size, hidden);
  const TensorRef o = builder.packed(module + "output_linear.weight", router.experts, hidden, size);
  for (int e = 0; e < router.experts && !builder.failed(); ++e) {
    mixer.q_experts.push_back(PlanBuilder::part(q, e * matrix, size, hidden));
    mixer.o_experts.push_back(PlanBuilder::part(o, e * matrix, hidden, size));
  }
  mixer.output_bias = builder.vector(module + "bias", hidden);
  return mixer;
}

}  // namespace

ModelPlan plan_jetmoe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, 2 * plan.layers.size());
  spec.score = ScoreFn::kSoftmaxTopK;
  const AttentionSpec shape = read_shape(builder, plan, spec);
  const Activation activation = builder.activation("activation_function");
  const int width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n), mlp = prefix + "mlp.";
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, kLayerEps),
                               .op = attention(builder, spec, shape, prefix + "self_attention.", plan.hidden)});
    MoeSpec experts{{.router = spec}, {.activation = activation, .width = width}};
    experts.router_weight = builder.matrix(mlp + "router.layer.weight", spec.experts, plan.hidden, "num_local_experts");
    experts.experts = packed_experts(builder, mlp + "input_linear.weight", mlp + "output_linear.weight", spec.experts,
                                     plan.hidden, width, "num_local_experts, intermediate_size");
    experts.output_bias = builder.vector(mlp + "bias", plan.hidden);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, kLayerEps),
                               .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard

// Jamba (specs/families.md, section 1.21): Mamba layers, and attention without rope in every attn_layer_period-th;
// softmax over all experts, then top-k, weights as they are. Data only; called while a checkpoint opens.
#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;

MambaSpec read_shape(PlanBuilder& builder, int hidden) {
  MambaSpec shape;
  shape.inner = hidden * builder.count_or("mamba_expand", 2, kMaxHidden / hidden);
  shape.state = builder.count_or("mamba_d_state", 16, kMaxHidden);
  shape.kernel = builder.count_or("mamba_d_conv", 4, kMaxHidden);
  const auto rank = builder.config().find("mamba_dt_rank");
  const bool automatic = !rank || rank->json() == "auto";
  shape.dt_rank = automatic ? (hidden + 15) / 16 : builder.count({"mamba_dt_rank"}, kMaxHidden);
  return shape;
}

MambaSpec mamba(PlanBuilder& builder, MambaSpec m, const std::string& prefix, int hidden, float eps) {
  const bool conv_bias = builder.flag_or("mamba_conv_bias", true), bias = builder.flag_or("mamba_proj_bias", false);
  const int64_t inner = m.inner;
  m.in = builder.matrix(prefix + "in_proj.weight", 2 * inner, hidden, "mamba_expand");
  m.in_bias = builder.vector_if(bias, prefix + "in_proj.bias", 2 * inner);
  const TensorRef conv = builder.packed(prefix + "conv1d.weight", inner, 1, m.kernel, "mamba_expand, mamba_d_conv");
  m.conv = PlanBuilder::part(conv, 0, inner, m.kernel);
  m.conv_bias = builder.vector_if(conv_bias, prefix + "conv1d.bias", inner);
  m.x =
      builder.matrix(prefix + "x_proj.weight", m.dt_rank + 2 * int64_t{m.state}, inner, "mamba_dt_rank, mamba_d_state");
  m.dt = builder.matrix(prefix + "dt_proj.weight", inner, m.dt_rank, "mamba_dt_rank");
  m.dt_bias = builder.vector(prefix + "dt_proj.bias", inner);
  m.a_log = builder.matrix(prefix + "A_log", inner, m.state, "mamba_d_state");
  m.d = builder.vector(prefix + "D", inner);
  m.out = builder.matrix(prefix + "out_proj.weight", hidden, inner);
  m.out_bias = builder.vector_if(bias, prefix + "out_proj.bias", hidden);
  m.dt_norm = rms_norm(builder, prefix + "dt_layernorm", m.dt_rank, eps);
  m.b_norm = rms_norm(builder, prefix + "b_layernorm", m.state, eps);
  m.c_norm = rms_norm(builder, prefix + "c_layernorm", m.state, eps);
  return m;
}

// Layer n is one of these iff n % period == offset.
struct Every {
  int period, offset;
  bool holds(size_t n) const { return static_cast<int>(n) % period == offset; }
};
Every read_every(PlanBuilder& builder, const std::string& what, int period, int offset) {
  const Every every{builder.count_or(what + "_period", period, kMaxLayers),
                    builder.count_or(what + "_offset", offset, kMaxLayers, 0)};
  if (every.offset >= every.period)
    builder.refuse_config(
        fmt::format("has {0}_offset = {1}, needs less than {0}_period = {2}", what, every.offset, every.period));
  return every;
}

}  // namespace

ModelPlan plan_jamba(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps, {.final_norm = "final_layernorm"});
  const float eps = plan.final_norm.eps;
  AttentionSpec shape = gqa_shape(builder, plan, {});
  shape.rope = {};
  const MambaSpec mamba_shape = read_shape(builder, plan.hidden);
  builder.only("hidden_act", "silu");  // it is the convolution's too, and Mamba is not defined for another
  const Every attention = read_every(builder, "attn_layer", 8, 4), sparse = read_every(builder, "expert_layer", 2, 1);

  const RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  MoeNames names = kSeparateExperts;
  names.module = names.packed_module = "feed_forward";
  names.router = "router.weight";
  names.width_key = "intermediate_size";
  const int width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    Sublayer mixer{.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps)};
    if (attention.holds(n))
      mixer.op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {});
    else
      mixer.op = mamba(builder, mamba_shape, prefix + "mamba.", plan.hidden, eps);
    layer.sublayers.push_back(std::move(mixer));
    Sublayer ffn{.norm = rms_norm(builder, prefix + "pre_ff_layernorm", plan.hidden, eps)};
    if (sparse.holds(n) && spec.experts > 1)
      ffn.op = moe(builder, spec, prefix, names, plan.hidden, width);
    else
      ffn.op = glu(builder, prefix + "feed_forward.", plan.hidden, width, "intermediate_size");
    layer.sublayers.push_back(std::move(ffn));
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard

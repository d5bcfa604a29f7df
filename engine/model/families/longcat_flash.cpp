// LongCat-Flash (specs/families.md, section 1.29): two latent attentions and two dense blocks a layer, and one MoE
// that branches off after the first attention and is added at the end; the last expert ids are identities. Softmax
// over all, selected with a bias, scaled. Data only; called while a checkpoint opens.
#include <cmath>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/families/latent.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-5f;
constexpr double kDefaultTheta = 1e7;

// Transformers 5 writes gate and up (not down) rows for the identities too; the hub does not.
std::vector<FfnWeights> read_experts(PlanBuilder& builder, const std::string& module, int experts, int identities,
                                     int hidden, int width) {
  std::vector<FfnWeights> all;
  const std::string_view why = "n_routed_experts, zero_expert_num, expert_ffn_hidden_size";
  const std::string gate_up = module + "experts.gate_up_proj";
  const int64_t matrix = int64_t{width} * hidden;
  TensorRef both, down;
  if (builder.has(gate_up)) {
    const int64_t rows = builder.extent(gate_up, 0) == experts ? experts : int64_t{experts} + identities;
    both = builder.packed(gate_up, rows, 2 * int64_t{width}, hidden, why);
    down = builder.packed(module + "experts.down_proj", experts, hidden, width, why);
  }
  for (int e = 0; e < experts && !builder.failed(); ++e) {
    if (both) {
      all.push_back({.gate = PlanBuilder::part(both, 2 * e * matrix, width, hidden),
                     .up = PlanBuilder::part(both, (2 * e + 1) * matrix, width, hidden),
                     .down = PlanBuilder::part(down, e * matrix, hidden, width)});
      continue;
    }
    const std::string prefix = fmt::format("{}experts.{}.", module, e);
    all.push_back({.gate = builder.matrix(prefix + "gate_proj.weight", width, hidden, why),
                   .up = builder.matrix(prefix + "up_proj.weight", width, hidden, why),
                   .down = builder.matrix(prefix + "down_proj.weight", hidden, width, why)});
  }
  return all;
}

}  // namespace

ModelPlan plan_longcat_flash(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps, {.layers_key = "num_layers"});
  const float eps = plan.final_norm.eps;
  LatentShape shape = latent_shape(builder, plan, RopeKind::kInterleaved, kDefaultTheta);
  if (shape.q_rank == 0) shape.q_rank = builder.count({"q_lora_rank"}, kMaxHidden);
  shape.attention.q_scale = static_cast<float>(std::sqrt(double(plan.hidden) / shape.q_rank));
  shape.attention.latent_scale = static_cast<float>(std::sqrt(double(plan.hidden) / shape.attention.kv_rank));

  RouterSpec spec = router(builder, {"n_routed_experts"}, plan.layers.size(), {"moe_topk", "num_experts_per_tok"});
  const int real = spec.experts, identities = builder.count_or("zero_expert_num", 256, kMaxExperts - real, 0);
  spec.experts += identities;
  spec.has_select_bias = true;
  spec.scale = builder.number_or("routed_scaling_factor", 6, 0);
  builder.only("zero_expert_type", "identity");
  builder.refuse_if("router_bias");
  const int dense_width = builder.count({"ffn_hidden_size"}, kMaxHidden);
  const int width = builder.count({"expert_ffn_hidden_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n), router_prefix = prefix + "mlp.router.";
    MoeSpec experts{{.router = spec}, {.activation = builder.activation(), .width = width}};
    experts.router_weight = builder.matrix(router_prefix + "classifier.weight", spec.experts, plan.hidden,
                                           "n_routed_experts + zero_expert_num");
    experts.select_bias = builder.vector(router_prefix + "e_score_correction_bias", spec.experts);
    experts.experts = read_experts(builder, prefix + "mlp.", real, identities, plan.hidden, width);
    experts.identity_experts = identities;
    for (const int half : {0, 1}) {
      const NormSpec before = rms_norm(builder, fmt::format("{}input_layernorm.{}", prefix, half), plan.hidden, eps);
      layer.sublayers.push_back(
          {.norm = before,
           .op = latent_attention(builder, shape, fmt::format("{}self_attn.{}.", prefix, half), plan.hidden)});
      const NormSpec after =
          rms_norm(builder, fmt::format("{}post_attention_layernorm.{}", prefix, half), plan.hidden, eps);
      if (half == 0) layer.sublayers.push_back({.norm = after, .op = std::move(experts), .deferred = true});
      layer.sublayers.push_back(
          {.norm = after,
           .op = glu(builder, fmt::format("{}mlps.{}.", prefix, half), plan.hidden, dense_width, "ffn_hidden_size")});
    }
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard

// What of a plan this backend does not run (missing_kind, model.h).
#include "engine/backend/cpu/loader.h"
#include "engine/routing/decision.h"

namespace switchyard::cpu {
namespace {

std::string missing_of(const FfnShape& shape) {
  switch (shape.kind) {
    case FfnKind::kGlu:
    case FfnKind::kGluOss:
    case FfnKind::kMlp:
      return {};
    case FfnKind::kGluDouble:
      return "feed-forward blocks with a doubled gate";
    case FfnKind::kRankOne:
      return "experts of rank one";
  }
  return "this kind of feed-forward block";
}

struct MissingOf {
  std::string operator()(const AttentionSpec& a) const {
    if (!a.causal || a.cross || a.position_bias) return "encoder or cross-attention";
    if (a.mask_a) return "a dynamic mask";
    if (a.gate_bias) return "a bias of the attention's gate";
    return {};
  }
  std::string operator()(const LatentAttentionSpec&) const { return {}; }
  std::string operator()(const FfnSpec& ffn) const { return missing_of(static_cast<const FfnShape&>(ffn)); }
  std::string operator()(const MoeSpec& moe) const {
    if (moe.router.product_key) return "product key routing";
    if (moe.router.capacity != Capacity::kNone || moe.router.post_scale != 1) return "experts with a capacity";
    if (std::string missing = unroutable(moe.router); !missing.empty()) return missing;
    if (moe.shared)
      if (std::string missing = (*this)(*moe.shared); !missing.empty()) return missing;
    return missing_of(moe.expert);
  }
  std::string operator()(const MixtureAttentionSpec&) const { return "attention with experts"; }
  std::string operator()(const LightningSpec&) const { return "lightning attention"; }
  std::string operator()(const DeltaNetSpec&) const { return "the gated delta rule"; }
  std::string operator()(const MambaSpec&) const { return "state space (Mamba) layers"; }
  std::string operator()(const ShortConvSpec&) const { return "convolution layers"; }
};

std::string missing_of(const switchyard::Sublayer& sublayer) {
  if (sublayer.deferred && (sublayer.base_scale != 1 || sublayer.base_is_normed || sublayer.base_weight))
    return "deferred sublayers that scale the residual";
  return std::visit(MissingOf{}, sublayer.op);
}

std::string missing_type(const TensorRef& ref) {
  if (ref.quantised || stored(ref.dtype)) return {};
  return std::string(switchyard::name(ref.dtype)) + " weights (" + ref.name + ")";
}

}  // namespace

std::string missing_kind(const ModelPlan& plan) {
  if (plan.encoder_layers > 0) return "an encoder";
  if (plan.sinusoidal_positions) return "sinusoidal positions";
  for (size_t i = 0; i < plan.layers.size(); ++i)
    for (const auto& sublayer : plan.layers[i].sublayers)
      if (std::string missing = missing_of(sublayer); !missing.empty())
        return missing + " (layer " + std::to_string(i) + ")";
  std::string missing;
  const auto check = [&](const TensorRef& ref) {
    if (missing.empty() && ref) missing = missing_type(ref);
  };
  for (const TensorRef* ref :
       {&plan.embedding, &plan.lm_head, &plan.lm_head_bias, &plan.final_norm.weight, &plan.final_norm.bias})
    check(*ref);
  for (const LayerPlan& layer : plan.layers)
    for (const auto& sublayer : layer.sublayers) for_each_tensor(sublayer, check);
  return missing;
}

}  // namespace switchyard::cpu

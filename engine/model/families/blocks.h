// Parts that families share (specs/families.md, sections 1.0 and 2): the llama frame, grouped-query attention,
// gated feed-forward layers and experts in their stored layouts. Called by the family files while a checkpoint opens.
#pragma once

#include <string>
#include <string_view>

#include "engine/model/plan.h"
#include "engine/model/plan_builder.h"

namespace switchyard {

// model.embed_tokens, model.norm, lm_head or the tied embedding; hidden, vocab, context, ids; `layers` sized.
ModelPlan llama_frame(PlanBuilder& builder, float default_eps);

std::string layer_prefix(size_t layer);  // "model.layers.3."

// An RMS norm of `size` weights, `name` without ".weight".
NormSpec rms_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps);

// Heads, scale and rope from the config, no tensors yet; limits plan.context where the rope does.
AttentionSpec gqa_shape(PlanBuilder& builder, ModelPlan& plan, double default_theta);

struct GqaTensors {
  bool qkv_bias = false;
  bool o_bias = false;
  float eps = 1e-6f;  // of q_norm and k_norm
};
// shape: from gqa_shape, with qk_norm, clip_qkv and sliding_window set. prefix: "model.layers.3.self_attn.".
AttentionSpec gqa(PlanBuilder& builder, AttentionSpec shape, const std::string& prefix, int hidden,
                  const GqaTensors& tensors);

// {gate,up,down}_proj under `prefix`.
FfnSpec glu(PlanBuilder& builder, const std::string& prefix, int hidden, int width, std::string_view width_key);

// Names of a family's original per-expert layout; `module` holds gate.weight and experts.N.
struct MoeNames {
  std::string_view module;  // "mlp"
  std::string_view gate, up, down;
  std::string_view experts_key, width_key;  // config keys, for messages
};
inline constexpr std::string_view kPackedModule = "mlp";

// Router and experts of the layer at `prefix`, one tensor an expert and matrix, or packed as transformers 5 holds
// them: mlp.experts.gate_up_proj [E, 2 width, hidden] (gate rows, then up rows), mlp.experts.down_proj [E, hidden,
// width].
MoeSpec moe(PlanBuilder& builder, const RouterSpec& router, const std::string& prefix, const MoeNames& names,
            int hidden, int width);

// Experts and k with their limits; experts_keys: of several spellings the first present counts.
RouterSpec router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys, size_t layers);

}  // namespace switchyard

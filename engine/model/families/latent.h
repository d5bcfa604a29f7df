// Multi-head latent attention as deepseek_v2, deepseek_v3 and longcat_flash store it (specs/families.md 1.5, 1.6).
// Called by the family files while a checkpoint opens.
#pragma once

#include <string>

#include "engine/model/plan.h"
#include "engine/model/plan_builder.h"

namespace switchyard {

struct LatentShape {
  LatentAttentionSpec attention;  // sizes, scale and rope, no tensors yet
  int q_rank = 0;                 // 0: one query projection
  bool bias = false;              // of q_a, kv_a and o
};

// Sizes from the config; limits plan.context where the rope does.
LatentShape latent_shape(PlanBuilder& builder, ModelPlan& plan, RopeKind rope, double default_theta = 1e4);

// prefix: "model.layers.3.self_attn.".
LatentAttentionSpec latent_attention(PlanBuilder& builder, const LatentShape& shape, const std::string& prefix,
                                     int hidden);

// DeepSeek's layers: MoE with shared experts from first_k_dense_replace on, before it dense.
// spec: the router; its selection bias is mlp.gate.e_score_correction_bias.
void deepseek_layers(PlanBuilder& builder, ModelPlan& plan, const LatentShape& shape, const RouterSpec& spec,
                     int default_first_dense, int default_shared);

}  // namespace switchyard

// Parts that families share (specs/families.md, sections 1.0 and 2): the llama frame, grouped-query attention,
// gated feed-forward layers and experts in their stored layouts. Called by the family files while a checkpoint opens.
#pragma once

#include <string>
#include <string_view>

#include "engine/model/plan.h"
#include "engine/model/plan_builder.h"

namespace switchyard {

// Tensor names of what surrounds the layers.
struct FrameNames {
  std::string model = "model.";
  std::string embedding = "embed_tokens";
  std::string final_norm = "norm";
  std::string head = "lm_head";
  std::string_view layers_key = "num_hidden_layers";
};
// Embedding, final RMS norm, head or the tied embedding; hidden, vocab, context, ids; `layers` sized.
ModelPlan llama_frame(PlanBuilder& builder, float default_eps, const FrameNames& names = {});

// eos_token_id, one or a list, and bos_token_id.
void read_token_ids(PlanBuilder& builder, ModelPlan& plan);

std::string layer_prefix(size_t layer, std::string_view model = "model.");  // "model.layers.3."

// `layer_types` of the config, or, where absent, fallback(layer); of the layers in `plan`.
template <class Fallback>
std::vector<std::string> layer_types(PlanBuilder& builder, const ModelPlan& plan, Fallback&& fallback) {
  std::vector<std::string> types = builder.texts_or_empty("layer_types", plan.layers.size());
  if (types.empty())
    for (size_t n = 0; n < plan.layers.size(); ++n) types.emplace_back(fallback(n));
  return types;
}
inline constexpr std::string_view kFullAttention = "full_attention", kSlidingAttention = "sliding_attention";
// Whether a layer's type is `type`; refuses one that is neither `type` nor `other`.
bool layer_is(PlanBuilder& builder, std::string_view found, std::string_view type, std::string_view other);

void read_token_ids(PlanBuilder& builder, ModelPlan& plan);  // eos_ids and bos_id, below plan.vocab

// An RMS norm of `size` weights, `name` without ".weight".
NormSpec rms_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps);
NormSpec layer_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps, bool bias);

struct AttentionDefaults {
  double theta = 1e4;
  RopeKind kind = RopeKind::kHalf;
  bool partial = false;         // whether the family reads partial_rotary_factor
  double partial_factor = 1.0;  // where the key is absent
  int head_dim = 0;             // where the key is absent; 0: hidden_size / num_attention_heads
  const Json* rope = nullptr;   // rope_parameters where absent
  bool rope_alpha = false;      // see RopeDefaults
};
// Heads, scale and rope from the config, no tensors yet; plan.context as the rope says.
AttentionSpec gqa_shape(PlanBuilder& builder, ModelPlan& plan, const AttentionDefaults& defaults);

struct GqaTensors {
  bool qkv_bias = false;
  bool o_bias = false;
  float eps = 1e-6f;  // of q_norm and k_norm
  std::string_view q_norm = "q_norm", k_norm = "k_norm", o = "o_proj";
  bool gated = false;  // q_proj holds, per head, the query and then the output's gate
};
// shape: from gqa_shape, with qk_norm, clip_qkv and sliding_window set. prefix: "model.layers.3.self_attn.".
AttentionSpec gqa(PlanBuilder& builder, AttentionSpec shape, const std::string& prefix, int hidden,
                  const GqaTensors& tensors);

// {gate,up,down}_proj under `prefix`.
FfnSpec glu(PlanBuilder& builder, const std::string& prefix, int hidden, int width, std::string_view width_key,
            bool bias = false);

// Names of a family's original per-expert layout; `module` holds the router and experts.N.
struct MoeNames {
  std::string_view module;  // "mlp"
  std::string_view gate, up, down;
  std::string_view experts_key, width_key;  // config keys, for messages
  std::string_view router = "gate.weight";  // "a|b": the first that is stored
  std::string_view select_bias = {};        // iff the router has one; "a|b" too
  bool select_bias_is_row = false;          // stored as [1, experts]
  std::string_view packed_module = "mlp";   // in place of `module` where the experts are packed
};
inline constexpr MoeNames kSeparateExperts{.module = "mlp",
                                           .gate = "gate_proj",
                                           .up = "up_proj",
                                           .down = "down_proj",
                                           .experts_key = "num_experts",
                                           .width_key = "moe_intermediate_size"};

// Router and experts of the layer at `prefix`, one tensor an expert and matrix, or packed as transformers 5 holds
// them: experts.gate_up_proj [E, 2 width, hidden] (gate rows, then up rows), experts.down_proj [E, hidden,
// width].
MoeSpec moe(PlanBuilder& builder, const RouterSpec& router, const std::string& prefix, const MoeNames& names,
            int hidden, int width);

// Experts stored as [E, 2 width, hidden] (gate rows, then up rows) and [E, hidden, width].
std::vector<FfnWeights> packed_experts(PlanBuilder& builder, const std::string& gate_up, const std::string& down,
                                       int experts, int hidden, int width, std::string_view why);

// Experts stored input first: [E, hidden, 2 width] (gate columns, then up columns; interleaved: in turn) and
// [E, width, hidden].
std::vector<FfnWeights> transposed_experts(PlanBuilder& builder, const std::string& gate_up, const std::string& down,
                                           int experts, int hidden, int width, std::string_view why,
                                           bool interleaved = false);

// Experts and k with their limits; of several spellings the first present counts.
RouterSpec router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys, size_t layers,
                  std::initializer_list<std::string_view> k_keys = {"num_experts_per_tok"});

// Refuses more experts per token than experts and more experts than the limit.
void check_router(PlanBuilder& builder, const RouterSpec& router, size_t layers, std::string_view k_key);

struct GroupedDefaults {
  bool norm_topk_prob = true;
  float scale = 1;
};
// DeepSeek-V3's rule, which several families share (specs/families.md 1.6): sigmoid, selection bias, group limit by
// the sum of the two best, weights without the bias, renormalised iff norm_topk_prob, scaled.
RouterSpec grouped_sigmoid_router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys,
                                  size_t layers, const GroupedDefaults& defaults);

// The shared expert of `copies` widths in one block, where copies > 0; a null or absent key: none.
void add_shared(PlanBuilder& builder, MoeSpec& moe, const std::string& prefix, int hidden, int width, int copies,
                std::string_view width_key, bool bias = false);

// DeepSeek's division of the layers (specs/families.md 1.5): a dense block below `dense_layers`, experts and shared
// experts (mlp.shared_experts) from there on.
struct DenseThenExperts {
  RouterSpec router;
  MoeNames names;
  int width = 0;   // of one expert
  int shared = 0;  // widths of the shared block
  std::string_view shared_key;
  size_t dense_layers = 0;
};
SublayerOp dense_or_experts(PlanBuilder& builder, const DenseThenExperts& spec, size_t layer, const std::string& prefix,
                            int hidden);

}  // namespace switchyard

// Parts that families share.
#include "engine/model/families/blocks.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/rope.h"

namespace switchyard {
namespace {

std::string equation(std::string_view key, int value) {
  return fmt::format("{} = {}", key, value);
}

std::vector<FfnWeights> separate_experts(PlanBuilder& builder, const std::string& module, const MoeNames& names,
                                         int experts, int hidden, int width) {
  std::vector<FfnWeights> all;
  const std::string why = equation(names.width_key, width);
  for (int e = 0; e < experts && !builder.failed(); ++e) {
    const std::string prefix = fmt::format("{}experts.{}.", module, e);
    all.push_back({.gate = builder.matrix(fmt::format("{}{}.weight", prefix, names.gate), width, hidden, why),
                   .up = builder.matrix(fmt::format("{}{}.weight", prefix, names.up), width, hidden, why),
                   .down = builder.matrix(fmt::format("{}{}.weight", prefix, names.down), hidden, width, why)});
  }
  return all;
}

// "a|b": a, unless only b is stored.
std::string stored_name(const PlanBuilder& builder, const std::string& module, std::string_view names) {
  const size_t bar = names.find('|');
  const std::string first = module + std::string(names.substr(0, bar));
  if (bar == std::string_view::npos || builder.has(first)) return first;
  const std::string second = module + std::string(names.substr(bar + 1));
  return builder.has(second) ? second : first;
}

}  // namespace

void read_token_ids(PlanBuilder& builder, ModelPlan& plan) {
  if (const auto eos = builder.config().find("eos_token_id"))
    plan.eos_ids = eos->json().is_array()
                       ? builder.list_or_empty("eos_token_id", plan.vocab - 1)
                       : std::vector<TokenId>{builder.count_or("eos_token_id", 0, plan.vocab - 1, 0)};
  if (builder.config().has("bos_token_id")) plan.bos_id = builder.count_or("bos_token_id", 0, plan.vocab - 1, 0);
}

std::string layer_prefix(size_t layer, std::string_view model) {
  return fmt::format("{}layers.{}.", model, layer);
}

std::vector<FfnWeights> packed_experts(PlanBuilder& builder, const std::string& gate_up, const std::string& down,
                                       int experts, int hidden, int width, std::string_view why) {
  const TensorRef gate_up_all = builder.packed(gate_up, experts, 2 * int64_t{width}, hidden, why);
  const TensorRef down_all = builder.packed(down, experts, hidden, width, why);
  std::vector<FfnWeights> all;
  const int64_t matrix = int64_t{width} * hidden;
  for (int e = 0; e < experts && !builder.failed(); ++e)
    all.push_back({.gate = PlanBuilder::part(gate_up_all, 2 * e * matrix, width, hidden),
                   .up = PlanBuilder::part(gate_up_all, (2 * e + 1) * matrix, width, hidden),
                   .down = PlanBuilder::part(down_all, e * matrix, hidden, width)});
  return all;
}

std::vector<FfnWeights> transposed_experts(PlanBuilder& builder, const std::string& gate_up, const std::string& down,
                                           int experts, int hidden, int width, std::string_view why, bool interleaved) {
  const TensorRef gate_up_all = builder.packed(gate_up, experts, hidden, 2 * int64_t{width}, why);
  const TensorRef down_all = builder.packed(down, experts, width, hidden, why);
  std::vector<FfnWeights> all;
  const int64_t matrix = int64_t{width} * hidden;
  for (int e = 0; e < experts && !builder.failed(); ++e) {
    const auto half = [&](int64_t first) {
      return PlanBuilder::strided(gate_up_all, 2 * e * matrix + first, width, hidden, interleaved ? 2 : 1,
                                  2 * int64_t{width});
    };
    all.push_back({.gate = half(0),
                   .up = half(interleaved ? 1 : width),
                   .down = PlanBuilder::strided(down_all, e * matrix, hidden, width, 1, hidden)});
  }
  return all;
}

bool layer_is(PlanBuilder& builder, std::string_view found, std::string_view type, std::string_view other) {
  if (found != type && found != other)
    builder.refuse_config(fmt::format("has layer_types with {}, this family has {} and {}", quote(found), type, other));
  return found == type;
}

NormSpec rms_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps) {
  return {.kind = NormKind::kRms, .weight = builder.vector(name + ".weight", size), .eps = eps};
}

NormSpec layer_norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps, bool bias) {
  return {.kind = NormKind::kLayerNorm,
          .weight = builder.vector(name + ".weight", size),
          .bias = builder.vector_if(bias, name + ".bias", size),
          .eps = eps};
}

ModelPlan llama_frame(PlanBuilder& builder, float default_eps, const FrameNames& names) {
  ModelPlan plan;
  plan.hidden = builder.count({"hidden_size"}, kMaxHidden);
  plan.vocab = builder.count({"vocab_size"}, kMaxVocab);
  plan.context = builder.count({"max_position_embeddings"}, kMaxContext);
  plan.layers.resize(builder.count({names.layers_key}, kMaxLayers));
  read_token_ids(builder, plan);

  const std::string why = equation("vocab_size", plan.vocab);
  plan.embedding = builder.matrix(names.model + names.embedding + ".weight", plan.vocab, plan.hidden, why);
  plan.dtype = plan.embedding.dtype;
  plan.final_norm =
      rms_norm(builder, names.model + names.final_norm, plan.hidden, builder.number_or("rms_norm_eps", default_eps, 0));
  // The key is written unless it equals a default; then the absence of lm_head says it.
  plan.tied = builder.flag_or("tie_word_embeddings", !builder.has(names.head + ".weight"));
  plan.lm_head = plan.tied ? plan.embedding
                           : builder.matrix(names.head + ".weight", plan.vocab, plan.hidden,
                                            why + ", tie_word_embeddings = false");
  return plan;
}

AttentionSpec gqa_shape(PlanBuilder& builder, ModelPlan& plan, const AttentionDefaults& defaults) {
  AttentionSpec shape;
  shape.heads = builder.count({"num_attention_heads"}, kMaxHidden);
  shape.kv_heads = builder.count_or("num_key_value_heads", shape.heads, kMaxHidden);
  const bool silent = defaults.head_dim > 0 && !builder.config().json().contains("head_dim");  // null is not silent
  shape.head_dim =
      silent ? defaults.head_dim : builder.count_or("head_dim", std::max(plan.hidden / shape.heads, 1), kMaxHidden);
  if (shape.heads % shape.kv_heads != 0)
    builder.refuse_config(fmt::format("has num_attention_heads = {}, not a multiple of num_key_value_heads = {}",
                                      shape.heads, shape.kv_heads));
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  const Rope rope = builder.take(read_rope(builder.config(), defaults.kind, shape.head_dim, plan.context,
                                           {.theta = defaults.theta,
                                            .partial_factor = defaults.partial_factor,
                                            .parameters = defaults.rope,
                                            .reads_alpha = defaults.rope_alpha}),
                                 Rope{});
  if (!builder.failed() && !defaults.partial && rope.spec.dims != shape.head_dim)
    builder.refuse_config(fmt::format("rotates {} of {} dimensions of a head, which this family does not do",
                                      rope.spec.dims, shape.head_dim));
  shape.rope = rope.spec;
  plan.context = rope.context;
  return shape;
}

namespace {

// Of heads that hold two parts of head_dim rows each, the part that starts at `first_row`. A vector is one column.
TensorRef every_head(const TensorRef& both, int64_t cols, int64_t first_row, int heads, int64_t head_dim) {
  TensorRef ref = PlanBuilder::part(both, first_row * cols, heads * head_dim, cols);
  ref.block_rows = head_dim;
  ref.block_stride = 2 * head_dim * cols;
  return ref;
}

}  // namespace

AttentionSpec gqa(PlanBuilder& builder, AttentionSpec shape, const std::string& prefix, int hidden,
                  const GqaTensors& tensors) {
  const int64_t q_size = int64_t{shape.heads} * shape.head_dim, kv_size = int64_t{shape.kv_heads} * shape.head_dim;
  const std::string q_why = fmt::format("num_attention_heads = {}, head_dim = {}", shape.heads, shape.head_dim);
  const std::string kv_why = fmt::format("num_key_value_heads = {}, head_dim = {}", shape.kv_heads, shape.head_dim);
  if (tensors.gated) {
    const TensorRef both = builder.matrix(prefix + "q_proj.weight", 2 * q_size, hidden, q_why);
    shape.q = every_head(both, hidden, 0, shape.heads, shape.head_dim);
    shape.gate = every_head(both, hidden, shape.head_dim, shape.heads, shape.head_dim);
    if (tensors.qkv_bias) {
      const TensorRef bias = builder.vector(prefix + "q_proj.bias", 2 * q_size);
      shape.q_bias = every_head(bias, 1, 0, shape.heads, shape.head_dim);
      shape.gate_bias = every_head(bias, 1, shape.head_dim, shape.heads, shape.head_dim);
    }
  } else {
    shape.q = builder.matrix(prefix + "q_proj.weight", q_size, hidden, q_why);
    shape.q_bias = builder.vector_if(tensors.qkv_bias, prefix + "q_proj.bias", q_size);
  }
  shape.k = builder.matrix(prefix + "k_proj.weight", kv_size, hidden, kv_why);
  shape.v = builder.matrix(prefix + "v_proj.weight", kv_size, hidden, kv_why);
  shape.o = builder.matrix(fmt::format("{}{}.weight", prefix, tensors.o), hidden, q_size, q_why);
  shape.k_bias = builder.vector_if(tensors.qkv_bias, prefix + "k_proj.bias", kv_size);
  shape.v_bias = builder.vector_if(tensors.qkv_bias, prefix + "v_proj.bias", kv_size);
  shape.o_bias = builder.vector_if(tensors.o_bias, fmt::format("{}{}.bias", prefix, tensors.o), hidden);
  if (shape.qk_norm == QkNorm::kNone || shape.qk_norm == QkNorm::kL2PostRope) return shape;
  const bool per_head = shape.qk_norm != QkNorm::kFullVector;
  shape.q_norm =
      rms_norm(builder, prefix + std::string(tensors.q_norm), per_head ? shape.head_dim : q_size, tensors.eps);
  shape.k_norm =
      rms_norm(builder, prefix + std::string(tensors.k_norm), per_head ? shape.head_dim : kv_size, tensors.eps);
  return shape;
}

FfnSpec glu(PlanBuilder& builder, const std::string& prefix, int hidden, int width, std::string_view width_key,
            bool bias) {
  const std::string why = equation(width_key, width);
  return {{.activation = builder.activation(), .width = width},
          {.gate = builder.matrix(prefix + "gate_proj.weight", width, hidden, why),
           .up = builder.matrix(prefix + "up_proj.weight", width, hidden, why),
           .down = builder.matrix(prefix + "down_proj.weight", hidden, width, why),
           .gate_bias = builder.vector_if(bias, prefix + "gate_proj.bias", width),
           .up_bias = builder.vector_if(bias, prefix + "up_proj.bias", width),
           .down_bias = builder.vector_if(bias, prefix + "down_proj.bias", hidden)}};
}

MoeSpec moe(PlanBuilder& builder, const RouterSpec& router, const std::string& prefix, const MoeNames& names,
            int hidden, int width) {
  const bool packed = builder.has(fmt::format("{}{}.experts.gate_up_proj", prefix, names.packed_module));
  const std::string module = fmt::format("{}{}.", prefix, packed ? names.packed_module : names.module);
  MoeSpec spec{{.router = router}, {.activation = builder.activation(), .width = width}};
  spec.router_weight = builder.matrix(stored_name(builder, module, names.router), router.experts, hidden,
                                      equation(names.experts_key, router.experts));
  if (router.has_select_bias) {
    const std::string name = stored_name(builder, module, names.select_bias);
    const std::string why = equation(names.experts_key, router.experts);
    spec.select_bias = names.select_bias_is_row ? builder.matrix(name, 1, router.experts, why)
                                                : builder.vector(name, router.experts, why);
  }
  spec.experts =
      packed ? packed_experts(builder, module + "experts.gate_up_proj", module + "experts.down_proj", router.experts,
                              hidden, width,
                              equation(names.experts_key, router.experts) + ", " + equation(names.width_key, width))
             : separate_experts(builder, module, names, router.experts, hidden, width);
  return spec;
}

RouterSpec router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys, size_t layers,
                  std::initializer_list<std::string_view> k_keys) {
  RouterSpec router;
  router.experts = builder.count(experts_keys, kMaxExperts);
  router.experts_per_token = builder.count(k_keys, kMaxExperts);
  check_router(builder, router, layers, *k_keys.begin());
  return router;
}

void check_router(PlanBuilder& builder, const RouterSpec& router, size_t layers, std::string_view k_key) {
  if (router.experts_per_token > router.experts)
    builder.refuse_config(
        fmt::format("has {} = {}, more than its {} experts", k_key, router.experts_per_token, router.experts));
  if (layers * router.experts > static_cast<size_t>(kMaxExpertsInAll))
    builder.refuse_config(fmt::format("has {} layers of {} experts, the limit is {} experts in all", layers,
                                      router.experts, kMaxExpertsInAll));
}

RouterSpec grouped_sigmoid_router(PlanBuilder& builder, std::initializer_list<std::string_view> experts_keys,
                                  size_t layers, const GroupedDefaults& defaults) {
  RouterSpec spec = router(builder, experts_keys, layers);
  spec.score = ScoreFn::kSigmoid;
  spec.has_select_bias = true;
  spec.groups = builder.count_or("n_group", 1, kMaxExperts);
  spec.groups_kept = builder.count_or("topk_group", 1, kMaxExperts);
  spec.group_score = GroupScore::kTop2Sum;
  spec.group_fill = GroupFill::kMinusInfinity;
  spec.renorm = builder.flag_or("norm_topk_prob", defaults.norm_topk_prob) ? Renorm::kSumEps20 : Renorm::kNone;
  spec.scale = builder.number_or("routed_scaling_factor", defaults.scale, 0);
  return spec;
}

void add_shared(PlanBuilder& builder, MoeSpec& moe, const std::string& prefix, int hidden, int width, int copies,
                std::string_view width_key, bool bias) {
  if (copies > 0) moe.shared = glu(builder, prefix, hidden, width * copies, width_key, bias);
}

SublayerOp dense_or_experts(PlanBuilder& builder, const DenseThenExperts& spec, size_t layer, const std::string& prefix,
                            int hidden) {
  if (layer < spec.dense_layers)
    return glu(builder, prefix + "mlp.", hidden, builder.count({"intermediate_size"}, kMaxHidden), "intermediate_size");
  MoeSpec experts = moe(builder, spec.router, prefix, spec.names, hidden, spec.width);
  add_shared(builder, experts, prefix + "mlp.shared_experts.", hidden, spec.width, spec.shared, spec.shared_key);
  return experts;
}

}  // namespace switchyard

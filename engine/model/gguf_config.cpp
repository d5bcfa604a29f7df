// The config.json of a GGUF file.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/gguf_model.h"

namespace switchyard {
namespace {

// Reads keys of the architecture; the first error stays.
class Keys {
 public:
  Keys(const Gguf& gguf, std::string arch, const std::string& file)
      : gguf_(gguf), arch_(std::move(arch)), file_(file) {}

  // A required integer above 0; lists (one a layer) count where all are equal.
  int64_t count(std::string_view key) {
    const auto value = optional_count(key);
    if (!value) refuse(fmt::format("has no {}.{}, which this architecture needs.", arch_, key));
    return value.value_or(1);
  }
  std::optional<int64_t> optional_count(std::string_view key) {
    const std::string full = arch_ + "." + std::string(key);
    const GgufValue* value = gguf_.find(full);
    if (!value) return std::nullopt;
    std::optional<int64_t> found;
    if (const auto* one = std::get_if<int64_t>(value)) found = *one;
    if (const auto* list = std::get_if<std::vector<int64_t>>(value); list && !list->empty()) {
      if (std::adjacent_find(list->begin(), list->end(), std::not_equal_to<>()) != list->end())
        refuse(fmt::format("has different values of {} by layer, which is not supported.", full));
      found = list->front();
    }
    if (!found || *found < 0) refuse(fmt::format("has {} that is no count.", full));
    return found;
  }
  std::optional<double> number(std::string_view key) const { return gguf_.number(arch_ + "." + std::string(key)); }
  std::optional<bool> flag(std::string_view key) const { return gguf_.flag(arch_ + "." + std::string(key)); }
  std::optional<std::string> text(std::string_view key) const { return gguf_.text(arch_ + "." + std::string(key)); }
  bool has_tensor(std::string_view name) const {
    return std::any_of(gguf_.tensors.begin(), gguf_.tensors.end(), [&](const GgufTensor& t) { return t.name == name; });
  }
  const GgufTensor* tensor(std::string_view name) const {
    const auto at = std::find_if(gguf_.tensors.begin(), gguf_.tensors.end(),
                                 [&](const GgufTensor& t) { return t.name == name; });
    return at == gguf_.tensors.end() ? nullptr : &*at;
  }
  // Divisors of the rope frequencies; nullopt: the file has none. Another form than one F32 a pair is refused.
  std::optional<std::vector<float>> rope_factors(const std::string& name) {
    if (!has_tensor(name)) return std::nullopt;
    const auto at = gguf_.rope_factors.find(name);
    if (at != gguf_.rope_factors.end()) return at->second;
    refuse(fmt::format("has a tensor {} that is no short vector of F32.", quote(name)));
    return std::nullopt;
  }
  void refuse(std::string what) {
    if (!error_) error_ = Error{ErrorCode::kMalformed, std::move(what), file_, ""};
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const Gguf& gguf_;
  std::string arch_;
  const std::string& file_;
  std::optional<Error> error_;
};

// Frequencies that the converter computed: `rope_freqs` of llama3 scaling, short and long factors of longrope. Both are
// longrope to the families; rope_freqs are the same whatever the length.
bool put_rope_factors(Keys& keys, Json& config) {
  const auto same = keys.rope_factors("rope_freqs.weight");
  const auto shorter = same ? same : keys.rope_factors("rope_factors_short.weight");
  const auto longer = same ? same : keys.rope_factors("rope_factors_long.weight");
  if (!shorter && !longer) return false;
  if (!shorter || !longer) {
    keys.refuse("has only one of rope_factors_short.weight and rope_factors_long.weight.");
    return true;
  }
  const double magnitude = same ? 1 : keys.number("rope.scaling.attn_factor").value_or(1);
  config["rope_scaling"] = {
      {"rope_type", "longrope"},
      {"short_factor", *shorter},
      {"long_factor", *longer},
      {"factor", 1},
      {"attention_factor", magnitude},
      {"original_max_position_embeddings", keys.optional_count("rope.scaling.original_context_length")
                                               .value_or(config["max_position_embeddings"].get<int64_t>())}};
  return true;
}

void put_rope(Keys& keys, Json& config, double default_theta) {
  config["rope_theta"] = keys.number("rope.freq_base").value_or(default_theta);
  if (put_rope_factors(keys, config)) return;
  const std::string type = keys.text("rope.scaling.type").value_or("none");
  const double factor = keys.number("rope.scaling.factor").value_or(0);
  if (type == "none" || factor == 0) return;
  if (type != "linear" && type != "yarn") {
    keys.refuse(fmt::format("has rope.scaling.type {}, supported are none, linear and yarn.", quote(type)));
    return;
  }
  Json scaling = {{"rope_type", type}, {"factor", factor}};
  if (const auto original = keys.optional_count("rope.scaling.original_context_length"))
    scaling["original_max_position_embeddings"] = *original;
  if (const auto fast = keys.number("rope.scaling.yarn_beta_fast")) scaling["beta_fast"] = *fast;
  if (const auto slow = keys.number("rope.scaling.yarn_beta_slow")) scaling["beta_slow"] = *slow;
  config["rope_scaling"] = scaling;
}

// What every architecture has.
void put_frame(Keys& keys, Json& config) {
  config["hidden_size"] = keys.count("embedding_length");
  config["num_hidden_layers"] = keys.count("block_count");
  config["max_position_embeddings"] = keys.count("context_length");
  config["num_attention_heads"] = keys.count("attention.head_count");
  if (const auto kv = keys.optional_count("attention.head_count_kv")) config["num_key_value_heads"] = *kv;
  if (const auto length = keys.optional_count("attention.key_length")) config["head_dim"] = *length;
  if (const auto eps = keys.number("attention.layer_norm_rms_epsilon")) config["rms_norm_eps"] = *eps;
  if (const GgufTensor* embedding = keys.tensor("token_embd.weight"); embedding && embedding->shape.size() == 2)
    config["vocab_size"] = embedding->shape[0];
  else
    keys.refuse("has no tensor token_embd.weight of two dimensions.");
  config["tie_word_embeddings"] = !keys.has_tensor("output.weight");
}

void put_experts(Keys& keys, Json& config, const char* count_key) {
  config[count_key] = keys.count("expert_count");
  config["num_experts_per_tok"] = keys.count("expert_used_count");
}

void mixtral(Keys& keys, Json& config) {
  if (keys.optional_count("expert_count").value_or(0) == 0)
    keys.refuse("is a llama model without experts, which is not supported.");
  put_experts(keys, config, "num_local_experts");
  config["intermediate_size"] = keys.count("feed_forward_length");
}

void olmoe(Keys& keys, Json& config) {
  put_experts(keys, config, "num_experts");
  config["intermediate_size"] = keys.optional_count("expert_feed_forward_length").value_or(0) > 0
                                    ? keys.count("expert_feed_forward_length")
                                    : keys.count("feed_forward_length");
  config["norm_topk_prob"] = false;  // as llama.cpp runs it; the key is not stored
  if (const auto clip = keys.number("attention.clamp_kqv"); clip && *clip > 0) config["clip_qkv"] = *clip;
}

void qwen2_moe(Keys& keys, Json& config) {
  put_experts(keys, config, "num_experts");
  config["intermediate_size"] = keys.count("feed_forward_length");
  config["moe_intermediate_size"] = keys.count("expert_feed_forward_length");
  config["shared_expert_intermediate_size"] = keys.count("expert_shared_feed_forward_length");
  config["norm_topk_prob"] = false;  // as llama.cpp runs it
}

void qwen3_moe(Keys& keys, Json& config) {
  put_experts(keys, config, "num_experts");
  config["intermediate_size"] = keys.count("feed_forward_length");
  config["moe_intermediate_size"] = keys.count("expert_feed_forward_length");
  config["norm_topk_prob"] = true;  // as llama.cpp runs it
}

void granite_moe(Keys& keys, Json& config) {
  put_experts(keys, config, "num_local_experts");
  config["intermediate_size"] = keys.count("feed_forward_length");
  if (const auto shared = keys.optional_count("expert_shared_feed_forward_length"); shared.value_or(0) > 0) {
    config["model_type"] = "granitemoeshared";
    config["shared_intermediate_size"] = *shared;
  }
  if (const auto value = keys.number("logit_scale")) config["logits_scaling"] = *value;
  if (const auto value = keys.number("residual_scale")) config["residual_multiplier"] = *value;
  if (const auto value = keys.number("embedding_scale")) config["embedding_multiplier"] = *value;
  if (const auto value = keys.number("attention.scale")) config["attention_multiplier"] = *value;
}

void gpt_oss(Keys& keys, Json& config) {
  put_experts(keys, config, "num_local_experts");
  config["intermediate_size"] = keys.count("expert_feed_forward_length");
  config["attention_bias"] = true;
  config["sliding_window"] = keys.count("attention.sliding_window");
  if (config.contains("rope_scaling")) config["rope_scaling"]["truncate"] = false;
}

// V2 scores by softmax, V3 and R1 by sigmoid.
void deepseek(Keys& keys, Json& config) {
  const int64_t gating = keys.optional_count("expert_gating_func").value_or(1);
  if (gating != 1 && gating != 2)
    keys.refuse(fmt::format("has expert_gating_func = {}, supported are 1 (softmax) and 2 (sigmoid).", gating));
  const bool v3 = gating == 2;
  config["model_type"] = v3 ? "deepseek_v3" : "deepseek_v2";
  put_experts(keys, config, "n_routed_experts");
  config["n_shared_experts"] = keys.count("expert_shared_count");
  config["moe_intermediate_size"] = keys.count("expert_feed_forward_length");
  config["intermediate_size"] = keys.count("feed_forward_length");
  config["first_k_dense_replace"] = keys.optional_count("leading_dense_block_count").value_or(0);
  config["routed_scaling_factor"] = keys.number("expert_weights_scale").value_or(1);
  config["norm_topk_prob"] = keys.flag("expert_weights_norm").value_or(false);
  int64_t groups = keys.optional_count("expert_group_count").value_or(0);
  int64_t used = keys.optional_count("expert_group_used_count").value_or(0);
  // Files older than these keys: V3 and R1 are the sigmoid models of 256 experts, with 4 of 8 groups.
  if (groups == 0 && v3 && config["n_routed_experts"] == 256) groups = 8, used = 4;
  if (groups > 1) {
    config["n_group"] = groups;
    config["topk_group"] = used;
    if (!v3) config["topk_method"] = "group_limited_greedy";
  } else {
    config["n_group"] = config["topk_group"] = v3 ? Json(1) : Json();
  }
  // With the split kv_b (MLA) the cache is one head wide; key_length and value_length then describe that head.
  const bool split = keys.optional_count("attention.key_length_mla").has_value();
  const int64_t rope = keys.count("rope.dimension_count");
  const int64_t key = keys.count(split ? "attention.key_length_mla" : "attention.key_length");
  config["num_key_value_heads"] = config["num_attention_heads"];
  config.erase("head_dim");
  if (key <= rope) keys.refuse(fmt::format("has keys of {} dimensions, {} of them rotated.", key, rope));
  config["qk_rope_head_dim"] = rope;
  config["qk_nope_head_dim"] = key - rope;
  config["v_head_dim"] = keys.count(split ? "attention.value_length_mla" : "attention.value_length");
  config["kv_lora_rank"] = keys.count("attention.kv_lora_rank");
  const int64_t q_rank = keys.optional_count("attention.q_lora_rank").value_or(0);
  config["q_lora_rank"] = q_rank > 0 ? Json(q_rank) : Json();
  config["rope_interleave"] = true;
  if (config.contains("rope_scaling") && config["rope_scaling"]["rope_type"] == "yarn") {
    // Stored is 0.1 mscale_all_dim; mscale is taken to be equal, as in all published models.
    const double mscale = std::round(keys.number("rope.scaling.yarn_log_multiplier").value_or(0) * 10 * 1e6) / 1e6;
    config["rope_scaling"]["mscale"] = config["rope_scaling"]["mscale_all_dim"] = mscale;
  }
}

// The file does not say how its weights are renormalised: llama.cpp divides by their sum, which is the p-norm of 1.
void dbrx(Keys& keys, Json& config) {
  constexpr double kEps = 1e-5;
  if (const double eps = keys.number("attention.layer_norm_epsilon").value_or(kEps); std::abs(eps - kEps) > 1e-9)
    keys.refuse(fmt::format("has attention.layer_norm_epsilon = {}, dbrx runs with {}.", eps, kEps));
  const double clip = keys.number("attention.clamp_kqv").value_or(0);
  config["d_model"] = config["hidden_size"];
  config["n_heads"] = config["num_attention_heads"];
  config["n_layers"] = config["num_hidden_layers"];
  config["max_seq_len"] = config["max_position_embeddings"];
  config["attn_config"] = {{"kv_n_heads", keys.count("attention.head_count_kv")},
                           {"clip_qkv", clip > 0 ? Json(clip) : Json()},
                           {"rope_theta", config["rope_theta"]}};
  config["ffn_config"] = {{"ffn_hidden_size", keys.count("feed_forward_length")},
                          {"moe_num_experts", keys.count("expert_count")},
                          {"moe_top_k", keys.count("expert_used_count")},
                          {"moe_normalize_expert_weights", 1}};
  for (const char* key : {"hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
                          "max_position_embeddings", "head_dim"})
    config.erase(key);
}

// The router's jitter and longrope's short_mscale and long_mscale are not stored: 0.01 as released, and the file's own
// magnitude for both. What makes it phimoe (layer norms with bias, sparsemixer) is that of the release; llama.cpp runs
// RMS norms and softmax in their place.
void phimoe(Keys& keys, Json& config) {
  put_experts(keys, config, "num_local_experts");
  config["intermediate_size"] = keys.count("feed_forward_length");
  config["attention_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  config["lm_head_bias"] = keys.has_tensor("output.bias");
  config["router_jitter_noise"] = 0.01;
  if (const auto window = keys.optional_count("attention.sliding_window").value_or(0); window > 0)
    config["sliding_window"] = window;
  if (config.contains("rope_scaling") && config["rope_scaling"]["rope_type"] == "longrope")
    config["rope_scaling"]["short_mscale"] = config["rope_scaling"]["long_mscale"] =
        config["rope_scaling"]["attention_factor"];
}

// The attention chunk, the temperature of the layers without rope and which layers those are are not stored: as
// llama.cpp runs them, which is as released; Maverick (128 experts) does not normalise q and k. A window of 0 marks a
// model that does neither.
void llama4(Keys& keys, Json& config) {
  put_experts(keys, config, "num_local_experts");
  config["intermediate_size"] = keys.count("expert_feed_forward_length");
  config["intermediate_size_mlp"] = keys.count("feed_forward_length");
  config["interleave_moe_layer_step"] = keys.count("interleave_moe_layer_step");
  config["attention_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  config["use_qk_norm"] = config["num_local_experts"] != 128;
  if (keys.optional_count("attention.sliding_window") == 0)
    keys.refuse("is a llama4 model without chunked attention, which is not supported.");
  if (const auto period = keys.optional_count("attention.sliding_window_pattern").value_or(4); period != 4)
    keys.refuse(fmt::format("has attention.sliding_window_pattern = {}, supported is 4.", period));
  config["no_rope_layer_interval"] = 4;
  config["attention_chunk_size"] = config["floor_scale"] = 8192;
  config["attn_scale"] = 0.1;
  config["attn_temperature_tuning"] = true;
}

struct Architecture {
  std::string_view name, model_type;
  double theta;
  void (*put)(Keys&, Json&);
};
constexpr std::array<Architecture, 10> kArchitectures{{{"llama", "mixtral", 1e4, mixtral},
                                                       {"olmoe", "olmoe", 1e4, olmoe},
                                                       {"qwen2moe", "qwen2_moe", 1e4, qwen2_moe},
                                                       {"qwen3moe", "qwen3_moe", 1e4, qwen3_moe},
                                                       {"granitemoe", "granitemoe", 1e4, granite_moe},
                                                       {"gpt-oss", "gpt_oss", 1.5e5, gpt_oss},
                                                       {"deepseek2", "deepseek_v2", 1e4, deepseek},
                                                       {"dbrx", "dbrx", 1e4, dbrx},
                                                       {"phimoe", "phimoe", 1e4, phimoe},
                                                       {"llama4", "llama4_text", 1e4, llama4}}};

}  // namespace

std::string supported_gguf_architectures() {
  std::string list;
  for (const Architecture& arch : kArchitectures) list += (list.empty() ? "" : ", ") + std::string(arch.name);
  return list;
}

Result<Json> config_of(const Gguf& gguf, const std::string& file) {
  const auto name = gguf.text("general.architecture");
  if (!name)
    return fail(ErrorCode::kMalformed, "has no general.architecture, so it describes no model.", file,
                fmt::format("Supported architectures: {}.", supported_gguf_architectures()));
  const auto arch =
      std::find_if(kArchitectures.begin(), kArchitectures.end(), [&](const Architecture& a) { return a.name == *name; });
  if (arch == kArchitectures.end())
    return fail(ErrorCode::kMalformed, fmt::format("has the architecture {}, which is not supported.", quote(*name)),
                file, fmt::format("Supported architectures: {}.", supported_gguf_architectures()));
  Keys keys(gguf, *name, file);
  Json config = {{"model_type", arch->model_type}, {"hidden_act", "silu"}};
  put_frame(keys, config);
  put_rope(keys, config, arch->theta);
  arch->put(keys, config);
  if (const auto id = gguf.integer("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = *id;
  if (const auto id = gguf.integer("tokenizer.ggml.eos_token_id")) config["eos_token_id"] = *id;
  if (keys.error()) return tl::unexpected<Error>(*keys.error());
  return config;
}

}  // namespace switchyard

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

void put_rope(Keys& keys, Json& config, double default_theta) {
  config["rope_theta"] = keys.number("rope.freq_base").value_or(default_theta);
  if (keys.has_tensor("rope_freqs.weight") || keys.has_tensor("rope_factors_long.weight"))
    keys.refuse("stores rope frequencies as a tensor, which is not supported.");
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

struct Architecture {
  std::string_view name, model_type;
  double theta;
  void (*put)(Keys&, Json&);
};
constexpr std::array<Architecture, 7> kArchitectures{{{"llama", "mixtral", 1e4, mixtral},
                                                      {"olmoe", "olmoe", 1e4, olmoe},
                                                      {"qwen2moe", "qwen2_moe", 1e4, qwen2_moe},
                                                      {"qwen3moe", "qwen3_moe", 1e4, qwen3_moe},
                                                      {"granitemoe", "granitemoe", 1e4, granite_moe},
                                                      {"gpt-oss", "gpt_oss", 1.5e5, gpt_oss},
                                                      {"deepseek2", "deepseek_v2", 1e4, deepseek}}};

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

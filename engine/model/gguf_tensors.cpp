// The tensors of a GGUF file under their Hugging Face names.
#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/gguf_model.h"
#include "engine/model/limits.h"
#include "engine/model/quantised.h"

namespace switchyard {
namespace {

using Shape = std::vector<int64_t>;

struct Rename {
  std::string_view from, to;  // within a layer; {e} of `to`: one tensor an expert
};

constexpr std::array kShared{
    Rename{"attn_norm.weight", "input_layernorm.weight"},
    Rename{"attn_norm.bias", "input_layernorm.bias"},
    Rename{"ffn_norm.weight", "post_attention_layernorm.weight"},
    Rename{"ffn_norm.bias", "post_attention_layernorm.bias"},
    Rename{"post_attention_norm.weight", "post_attention_layernorm.weight"},
    Rename{"attn_q.weight", "self_attn.q_proj.weight"},
    Rename{"attn_k.weight", "self_attn.k_proj.weight"},
    Rename{"attn_v.weight", "self_attn.v_proj.weight"},
    Rename{"attn_output.weight", "self_attn.o_proj.weight"},
    Rename{"attn_q.bias", "self_attn.q_proj.bias"},
    Rename{"attn_k.bias", "self_attn.k_proj.bias"},
    Rename{"attn_v.bias", "self_attn.v_proj.bias"},
    Rename{"attn_output.bias", "self_attn.o_proj.bias"},
    Rename{"attn_q_norm.weight", "self_attn.q_norm.weight"},
    Rename{"attn_k_norm.weight", "self_attn.k_norm.weight"},
    Rename{"attn_sinks.weight", "self_attn.sinks"},
    Rename{"attn_q_a.weight", "self_attn.q_a_proj.weight"},
    Rename{"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
    Rename{"attn_q_b.weight", "self_attn.q_b_proj.weight"},
    Rename{"attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"},
    Rename{"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
    Rename{"attn_kv_b.weight", "self_attn.kv_b_proj.weight"},
    Rename{"ffn_gate.weight", "mlp.gate_proj.weight"},
    Rename{"ffn_up.weight", "mlp.up_proj.weight"},
    Rename{"ffn_down.weight", "mlp.down_proj.weight"},
    Rename{"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
};
constexpr std::array kMixtral{
    Rename{"ffn_gate_inp.weight", "block_sparse_moe.gate.weight"},
    Rename{"ffn_gate_exps.weight", "block_sparse_moe.experts.{e}.w1.weight"},
    Rename{"ffn_up_exps.weight", "block_sparse_moe.experts.{e}.w3.weight"},
    Rename{"ffn_down_exps.weight", "block_sparse_moe.experts.{e}.w2.weight"},
};
constexpr std::array kPlainMoe{
    Rename{"ffn_gate_inp.weight", "mlp.gate.weight"},
    Rename{"ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight"},
    Rename{"ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight"},
    Rename{"ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight"},
    Rename{"ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight"},
    Rename{"ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight"},
    Rename{"ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"},
    Rename{"ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight"},
};
constexpr std::array kDeepseek{
    Rename{"ffn_gate_inp.weight", "mlp.gate.weight"},
    Rename{"ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight"},
    Rename{"ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight"},
    Rename{"ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight"},
    Rename{"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
    Rename{"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
    Rename{"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"},
};
constexpr std::array kGranite{
    Rename{"ffn_gate_inp.weight", "block_sparse_moe.router.layer.weight"},
    Rename{"ffn_down_exps.weight", "block_sparse_moe.output_linear.weight"},
    Rename{"ffn_down_shexp.weight", "shared_mlp.output_linear.weight"},
};
// The releases store experts in one tensor, down transposed; the file has them the other way, so each stands alone.
constexpr std::array kDbrx{
    Rename{"attn_norm.weight", "norm_attn_norm.norm_1.weight"},
    Rename{"attn_qkv.weight", "norm_attn_norm.attn.Wqkv.weight"},
    Rename{"attn_output.weight", "norm_attn_norm.attn.out_proj.weight"},
    Rename{"attn_output_norm.weight", "norm_attn_norm.norm_2.weight"},
    Rename{"ffn_gate_inp.weight", "ffn.router.layer.weight"},
    Rename{"ffn_gate_exps.weight", "ffn.experts.{e}.w1.weight"},
    Rename{"ffn_up_exps.weight", "ffn.experts.{e}.v1.weight"},
    Rename{"ffn_down_exps.weight", "ffn.experts.{e}.w2.weight"},
};
constexpr std::array kLlama4{
    Rename{"ffn_gate_inp.weight", "feed_forward.router.weight"},
    Rename{"ffn_gate_exps.weight", "feed_forward.experts.{e}.gate_proj.weight"},
    Rename{"ffn_up_exps.weight", "feed_forward.experts.{e}.up_proj.weight"},
    Rename{"ffn_down_exps.weight", "feed_forward.experts.{e}.down_proj.weight"},
    Rename{"ffn_gate_shexp.weight", "feed_forward.shared_expert.gate_proj.weight"},
    Rename{"ffn_up_shexp.weight", "feed_forward.shared_expert.up_proj.weight"},
    Rename{"ffn_down_shexp.weight", "feed_forward.shared_expert.down_proj.weight"},
    Rename{"ffn_gate.weight", "feed_forward.gate_proj.weight"},
    Rename{"ffn_up.weight", "feed_forward.up_proj.weight"},
    Rename{"ffn_down.weight", "feed_forward.down_proj.weight"},
};
constexpr std::array kGptOss{
    Rename{"ffn_gate_inp.weight", "mlp.router.weight"},
    Rename{"ffn_gate_inp.bias", "mlp.router.bias"},
    Rename{"ffn_down_exps.weight", "mlp.experts.down_proj_blocks"},
    Rename{"ffn_down_exps.bias", "mlp.experts.down_proj_bias"},
};

std::span<const Rename> names_of(const std::string& family) {
  if (family == "mixtral" || family == "phimoe") return kMixtral;
  if (family == "dbrx") return kDbrx;
  if (family == "llama4_text") return kLlama4;
  if (family.starts_with("deepseek")) return kDeepseek;
  if (family.starts_with("granite")) return kGranite;
  if (family == "gpt_oss") return kGptOss;
  return kPlainMoe;
}

// Names outside the layers.
constexpr std::array kFrame{Rename{"token_embd.weight", "model.embed_tokens.weight"},
                            Rename{"output_norm.weight", "model.norm.weight"},
                            Rename{"output_norm.bias", "model.norm.bias"}, Rename{"output.weight", "lm_head.weight"},
                            Rename{"output.bias", "lm_head.bias"}};
constexpr std::array kDbrxFrame{Rename{"token_embd.weight", "transformer.wte.weight"},
                                Rename{"output_norm.weight", "transformer.norm_f.weight"},
                                Rename{"output.weight", "lm_head.weight"}};

std::span<const Rename> frame_of(const std::string& family) {
  if (family == "dbrx") return kDbrxFrame;
  return kFrame;
}

std::string layer_prefix_of(const std::string& family, int layer) {
  return fmt::format("{}.{}.", family == "dbrx" ? "transformer.blocks" : "model.layers", layer);
}

// Two stored tensors that are one: `unit` elements of the first, then of the second, ...
struct Merge {
  std::string_view first, second, to;
  enum Unit { kMatrix, kRow, kElement } unit;
};
constexpr std::array kGraniteMerges{
    Merge{"ffn_gate_exps.weight", "ffn_up_exps.weight", "block_sparse_moe.input_linear.weight", Merge::kMatrix},
    Merge{"ffn_gate_shexp.weight", "ffn_up_shexp.weight", "shared_mlp.input_linear.weight", Merge::kMatrix}};
constexpr std::array kGptOssMerges{
    Merge{"ffn_gate_exps.weight", "ffn_up_exps.weight", "mlp.experts.gate_up_proj_blocks", Merge::kRow},
    Merge{"ffn_gate_exps.bias", "ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias", Merge::kElement}};

std::span<const Merge> merges_of(const std::string& family) {
  if (family.starts_with("granite")) return kGraniteMerges;
  if (family == "gpt_oss") return kGptOssMerges;
  return {};
}

DType dtype_of(GgmlType type) {
  return type == GgmlType::kF32    ? DType::kF32
         : type == GgmlType::kF16  ? DType::kF16
         : type == GgmlType::kBF16 ? DType::kBF16
                                   : DType::kU8;
}

class Builder {
 public:
  Builder(const Gguf& gguf, const Json& config, std::span<const std::string> files)
      : config_(config), family_(config["model_type"]), files_(files) {
    for (const GgufTensor& tensor : gguf.tensors) by_name_[tensor.name] = &tensor;
  }

  Result<std::vector<TensorInfo>> run() {
    for (const auto& [name, tensor] : by_name_) {
      SY_TRY(const bool done, add(*tensor));
      if (!done) plain(name, *tensor, tensor->shape);  // nothing asks for it; listed as it is
    }
    return std::move(tensors_);
  }

 private:
  Result<bool> add(const GgufTensor& tensor) {
    for (const Rename& name : frame_of(family_))
      if (tensor.name == name.from) return plain(std::string(name.to), tensor, tensor.shape);
    constexpr std::string_view kBlock = "blk.";
    if (!tensor.name.starts_with(kBlock)) return false;
    int layer = 0;
    const char* end = tensor.name.data() + tensor.name.size();
    const auto [rest, error] = std::from_chars(tensor.name.data() + kBlock.size(), end, layer);
    if (error != std::errc() || rest == end || *rest != '.' || layer < 0 || layer >= kMaxLayers) return false;
    const std::string prefix = layer_prefix_of(family_, layer);
    const std::string part(rest + 1, end), block = fmt::format("blk.{}.", layer);
    for (const Merge& merge : merges_of(family_)) {
      if (part == merge.first) return merged(tensor, block, prefix, merge);
      if (part == merge.second) return false;  // listed under its own name; its bytes belong to the merged tensor
    }
    if (part == "attn_k_b.weight") return latent_pair(tensor, block, prefix);
    for (const auto names : {names_of(family_), std::span<const Rename>(kShared)})
      for (const Rename& name : names)
        if (part == name.from) return renamed(tensor, prefix, std::string(name.to));
    return false;
  }

  Result<bool> renamed(const GgufTensor& tensor, const std::string& prefix, const std::string& to) {
    if (const size_t at = to.find("{e}"); at != std::string::npos) return experts(tensor, prefix, to, at);
    const bool q = to.starts_with("self_attn.q_proj"), k = to.starts_with("self_attn.k_proj");
    if ((q || k) && (family_ == "mixtral" || family_.starts_with("granite")))
      return head_rows(tensor, prefix + to, q ? "num_attention_heads" : "num_key_value_heads");
    Shape shape = tensor.shape;
    if (to == "mlp.shared_expert_gate.weight" && shape.size() == 1) shape.insert(shape.begin(), 1);
    return plain(prefix + to, tensor, shape);
  }

  Result<bool> experts(const GgufTensor& tensor, const std::string& prefix, const std::string& to, size_t at) {
    if (tensor.shape.size() != 3) return fail(tensor, "needs three dimensions: experts, rows, columns");
    const int64_t count = tensor.shape[0];
    if (count > kMaxExperts || tensors_.size() + static_cast<size_t>(count) > kMaxExpertsInAll * size_t{4})
      return fail(tensor, "brings the model above the limit of experts");
    const uint64_t each = (tensor.end - tensor.begin) / static_cast<uint64_t>(count);
    for (int64_t e = 0; e < count; ++e) {
      GgufTensor one = tensor;
      one.begin = tensor.begin + static_cast<uint64_t>(e) * each;
      one.end = one.begin + each;
      plain(prefix + to.substr(0, at) + std::to_string(e) + to.substr(at + 3), one, {tensor.shape[1], tensor.shape[2]});
    }
    return true;
  }

  // The llama converter lays the rows of each head of q and k in the order of interleaved rope.
  Result<bool> head_rows(const GgufTensor& tensor, const std::string& to, const char* heads_key) {
    const int64_t heads = config_.contains(heads_key) ? config_[heads_key].get<int64_t>()
                                                      : config_["num_attention_heads"].get<int64_t>();
    const int64_t rows = tensor.shape[0], cols = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
    if (tensor.shape.size() > 2 || rows % heads != 0 || rows / heads % 2 != 0)
      return fail(tensor, fmt::format("does not divide into {} heads of an even number of rows", heads));
    if (tensor.shape.size() == 1 && ggml_block(tensor.type).elements > 1) return fail(tensor, "needs a plain type");
    QuantLayout layout{.kind = QuantKind::kHeadRows, .label = label(tensor.type), .rows = rows, .cols = cols,
                       .ggml = tensor.type, .heads = heads};
    put(to, tensor, tensor.shape, std::make_shared<const QuantLayout>(std::move(layout)));
    return true;
  }

  Result<bool> merged(const GgufTensor& first, const std::string& block, const std::string& prefix,
                      const Merge& merge) {
    const auto at = by_name_.find(block + std::string(merge.second));
    if (at == by_name_.end() || at->second->shape != first.shape)
      return fail(first, fmt::format("needs {} beside it, of the same shape", block + std::string(merge.second)));
    const GgufTensor& second = *at->second;
    Shape shape = first.shape;
    const size_t axis = merge.unit == Merge::kElement ? shape.size() - 1 : shape.size() < 2 ? 0 : shape.size() - 2;
    if (merge.unit != Merge::kElement && shape.size() < 2) return fail(first, "needs at least two dimensions");
    const int64_t cols = shape.back(), rows = shape.size() < 2 ? 1 : shape[shape.size() - 2];
    const int64_t unit = merge.unit == Merge::kElement ? 1 : merge.unit == Merge::kRow ? cols : rows * cols;
    if (unit % ggml_block(first.type).elements != 0 || unit % ggml_block(second.type).elements != 0)
      return fail(first, "needs a plain type");
    shape[axis] *= 2;
    int64_t elements = 1;
    for (const int64_t dim : shape) elements *= dim;
    QuantLayout layout{.kind = QuantKind::kInterleaved,
                       .label = label(first.type),
                       .rows = elements / unit,
                       .cols = unit,
                       .ggml = first.type,
                       .second_ggml = second.type,
                       .second = {dtype_of(second.type), second.part, second.begin, second.end},
                       .unit = unit};
    put(prefix + std::string(merge.to), first, shape, std::make_shared<const QuantLayout>(std::move(layout)));
    return true;
  }

  // kv_b of the files that split it for MLA.
  Result<bool> latent_pair(const GgufTensor& keys, const std::string& block, const std::string& prefix) {
    const auto at = by_name_.find(block + "attn_v_b.weight");
    if (at == by_name_.end() || keys.shape.size() != 3 || at->second->shape.size() != 3 ||
        at->second->shape[0] != keys.shape[0] || at->second->shape[2] != keys.shape[1])
      return fail(keys, "needs attn_v_b.weight [heads, value, rank] beside it and the shape [heads, rank, nope]");
    const GgufTensor& values = *at->second;
    const int64_t heads = keys.shape[0], rank = keys.shape[1], nope = keys.shape[2], value = values.shape[1];
    QuantLayout layout{.kind = QuantKind::kLatentPair,
                       .label = label(keys.type),
                       .rows = heads * (nope + value),
                       .cols = rank,
                       .ggml = keys.type,
                       .second_ggml = values.type,
                       .second = {dtype_of(values.type), values.part, values.begin, values.end},
                       .heads = heads,
                       .nope = nope,
                       .value = value};
    put(prefix + "self_attn.kv_b_proj.weight", keys, {layout.rows, rank},
        std::make_shared<const QuantLayout>(std::move(layout)));
    return true;
  }

  bool plain(std::string name, const GgufTensor& tensor, Shape shape) {
    std::shared_ptr<const QuantLayout> layout;
    if (dtype_of(tensor.type) == DType::kU8 || name.ends_with("_blocks")) {
      auto& known = layouts_[tensor.type];
      if (!known)
        known = std::make_shared<const QuantLayout>(
            QuantLayout{.kind = QuantKind::kGgml, .label = label(tensor.type), .ggml = tensor.type});
      layout = known;
    }
    put(std::move(name), tensor, std::move(shape), std::move(layout));
    return true;
  }

  void put(std::string name, const GgufTensor& tensor, Shape shape, std::shared_ptr<const QuantLayout> layout) {
    tensors_.push_back({.name = std::move(name),
                        .dtype = dtype_of(tensor.type),
                        .shape = std::move(shape),
                        .begin = tensor.begin,
                        .end = tensor.end,
                        .shard = tensor.part,
                        .layout = std::move(layout)});
  }

  static std::string label(GgmlType type) { return "GGUF " + std::string(ggml_block(type).name); }

  tl::unexpected<Error> fail(const GgufTensor& tensor, std::string_view what) const {
    return switchyard::fail(
        ErrorCode::kMalformed,
        fmt::format("tensor {} has shape {}, it {}.", quote(tensor.name), shape_text(tensor.shape), what),
        files_[static_cast<size_t>(tensor.part)]);
  }

  const Json& config_;
  std::string family_;
  std::span<const std::string> files_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, const GgufTensor*> by_name_;
  std::map<GgmlType, std::shared_ptr<const QuantLayout>> layouts_;
};

}  // namespace

Result<std::vector<TensorInfo>> gguf_tensors_of(const Gguf& gguf, const Json& config,
                                                std::span<const std::string> files) {
  return Builder(gguf, config, files).run();
}

}  // namespace switchyard

// Every format that is read, in the order in which a dump is tried: the ones whose look is unmistakable first.
#include <algorithm>
#include <vector>

#include "engine/trace/import/dump.h"

namespace switchyard::dumps {
namespace {

std::vector<DumpFormat>& all_formats() {
  static std::vector<DumpFormat> list = {
    {"esft", "ESFT router log", "a folder of expert_weights_{L}.txt or .txt.gz", "token ids, domains, router logits", recognises_esft, read_esft},
    {"sglang", "SGLang", "expert_distribution_recorder_*.pt (stat, per_pass, per_token; a folder of ranks), logical_count JSON, responses with routed_experts",
     "weights and router logits; of stat and per_pass also tokens", recognises_sglang, read_sglang},
    {"vllm", "vLLM", "responses with prompt_routed_experts and routed_experts (lists or base64 npy), an npy array [tokens, layers, k], JSONL of a patched router log",
     "weights (but of the router log), router logits, the number of experts", recognises_vllm, read_vllm},
    {"eplb", "vLLM EPLB state", "expert_load_window with physical_to_logical_map, as .pt or JSON", "tokens, weights, router logits", recognises_eplb, read_eplb},
    {"megatron", "Megatron router trace", "router_trace_rank{r}.jsonl and logits_rank{r}.bin beside it", "token ids, weights; the order of the slots where no logits are beside it", recognises_megatron, read_megatron},
    {"olmoe", "OLMoE analysis", "c4_results*.jsonl with exp_ids, expert_counts/*.pkl", "weights, router logits, the number of experts", recognises_olmoe, read_olmoe},
    {"exflow", "ExFlow", "an npy array [tokens, MoE layers] of first choices", "all but the first choice of a token, sequences", recognises_exflow, read_exflow},
    {"moe-lrc", "moe-lrc", "{model}_{layer}*.pt of router logits, safetensors of logits, rank or topk; one file a layer", "token ids, weights", recognises_moe_lrc, read_moe_lrc},
    {"imatrix", "llama.cpp imatrix", "an imatrix in GGUF; the older .dat has no counts and is refused by name", "tokens, weights, router logits", recognises_imatrix, read_imatrix},
    {"reap", "REAP observer state", "a .pt of {layer: {expert_frequency, ...}}", "tokens, router logits", recognises_reap, read_reap},
    {"moe-vis", "moe-vis", "JSONL of experts and weights, activations.npz", "token ids, requests, the number of experts (JSONL); tokens (npz)", recognises_moe_vis, read_moe_vis},
    {"moe-atlas", "moe-routing-atlas", "JSON or JSONL with activations", "router logits; rows can be missing", recognises_moe_atlas, read_moe_atlas},
    {"gpt-oss", "gpt-oss fingerprint", "*_examples.json with router_data, or the aggregate with think_expert_analytics", "token ids, router logits; of the aggregate also tokens", recognises_gpt_oss, read_gpt_oss},
    {"plumb", "plumb report", "a report with layers and token_count", "tokens, weights, router logits, k", recognises_plumb, read_plumb},
    {"csv", "CSV of choices or counts", "layer,expert a row (llama.cpp), or layer_id,expert_id,count (SGLang)", "tokens, weights, router logits", recognises_csv, read_csv},
  };
  return list;
}

}  // namespace

std::span<const DumpFormat> formats() { return all_formats(); }

void add_formats(std::vector<DumpFormat> more) {
  for (DumpFormat& format : more) all_formats().push_back(std::move(format));
}

const DumpFormat* find_format(std::string_view name) {
  const auto& list = all_formats();
  const auto found = std::find_if(list.begin(), list.end(), [&](const DumpFormat& format) { return format.name == name; });
  return found == list.end() ? nullptr : &*found;
}

}  // namespace switchyard::dumps

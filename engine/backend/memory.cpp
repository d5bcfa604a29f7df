// What a plan takes in memory, per backend. Called before loading, on any thread.
#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/executor.h"
#include "engine/backend/cpu/loader.h"
#include "engine/base/text.h"
#include "engine/model/quantised.h"

namespace switchyard {
namespace {

// Resident once LibTorch is loaded (measured: 114 MiB over the cpu backend), and the program itself.
constexpr uint64_t kLibTorchBytes = uint64_t(120) << 20;
constexpr uint64_t kProgramBytes = uint64_t(12) << 20;

// Floats of keys and values that one token leaves in a sublayer.
uint64_t kv_floats(const SublayerOp& op) {
  if (const auto* a = std::get_if<AttentionSpec>(&op)) return 2 * uint64_t(a->kv_heads) * uint64_t(a->head_dim);
  if (const auto* a = std::get_if<LatentAttentionSpec>(&op)) return uint64_t(a->kv_rank) + uint64_t(a->rope_dim);
  if (const auto* a = std::get_if<MixtureAttentionSpec>(&op)) return kv_floats(a->attention);
  return 0;
}

// Floats of a sequence's recurrent state, whatever its length: the state proper and the inputs that a convolution
// looks back on.
uint64_t state_floats(const SublayerOp& op) {
  if (const auto* l = std::get_if<LightningSpec>(&op))
    return uint64_t(l->heads) * uint64_t(l->head_dim) * uint64_t(l->head_dim);
  if (const auto* d = std::get_if<DeltaNetSpec>(&op))
    return uint64_t(d->value_heads) * uint64_t(d->key_dim) * uint64_t(d->value_dim) + uint64_t(d->conv.elements());
  if (const auto* m = std::get_if<MambaSpec>(&op))
    return uint64_t(m->inner) * uint64_t(m->state) + uint64_t(m->conv.elements());
  if (const auto* c = std::get_if<ShortConvSpec>(&op)) return uint64_t(c->conv.elements());
  return 0;
}

// cpu runs a prompt in pieces of kChunkTokens, whatever the context: a token's activations (of a routed layer, gate and
// up of each slot), and the logits of its last token.
uint64_t cpu_workspace_bytes(const ModelPlan& plan, int context) {
  uint64_t widest = 0;
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      uint64_t floats = 0;
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op))
        floats = 2 * (uint64_t(a->heads) + uint64_t(a->kv_heads)) * uint64_t(a->head_dim);
      if (const auto* a = std::get_if<LatentAttentionSpec>(&sublayer.op))
        floats = 2 * uint64_t(a->heads) * (uint64_t(a->kv_rank) + uint64_t(a->rope_dim));
      if (const auto* ffn = std::get_if<FfnSpec>(&sublayer.op)) floats = 2 * uint64_t(ffn->width);
      if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op))
        floats = 2 * uint64_t(moe->expert.width) * uint64_t(moe->router.experts_per_token) +
                 2 * uint64_t(moe->router.experts);
      widest = std::max(widest, floats);
    }
  const auto tokens = uint64_t(std::clamp(context, 0, cpu::kChunkTokens));
  return (tokens * (widest + 3 * uint64_t(plan.hidden)) + uint64_t(plan.vocab)) * sizeof(float);
}

// reference: scores of a block of queries, and a few activations of a whole prompt.
uint64_t reference_workspace_bytes(const ModelPlan& plan, int context) {
  constexpr uint64_t kQueries = 256, kActivations = 8;
  uint64_t heads = 0, width = uint64_t(plan.hidden);
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op)) {
        heads = std::max(heads, uint64_t(a->heads));
        width = std::max(width, uint64_t(a->heads) * uint64_t(a->head_dim));
      }
      if (const auto* ffn = std::get_if<FfnSpec>(&sublayer.op)) width = std::max(width, uint64_t(ffn->width));
    }
  const uint64_t scores = 2 * heads * kQueries * uint64_t(context);
  return (scores + kActivations * width * uint64_t(context) + kQueries * uint64_t(plan.vocab)) * sizeof(float);
}

// What the cpu backend keeps beside the file: decoded matrices, and of latent attention the transposed key part.
MemoryEstimate cpu_weights(const ModelPlan& plan) {
  MemoryEstimate need;
  const auto in_blocks = [](const TensorRef& ref) { return cpu::stored_in_blocks(ref).has_value(); };
  for_each_weight(plan, [&](const TensorRef& ref) {
    (in_blocks(ref) || ref.in_place() ? need.in_file : need.decoded) += cpu::held_bytes(ref);
  });
  const auto always_decoded = [&](const TensorRef& ref) {
    if (!ref || !in_blocks(ref)) return;
    need.in_file -= cpu::held_bytes(ref);
    need.decoded += decoded_bytes(ref);
  };
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      if (const auto* latent = std::get_if<LatentAttentionSpec>(&sublayer.op)) {
        always_decoded(latent->kv_b);
        need.decoded += uint64_t(latent->heads) * uint64_t(latent->nope_dim) * uint64_t(latent->kv_rank) *
                        uint64_t(bits(exact_dtype(latent->kv_b))) / 8;
      }
      if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op)) {
        always_decoded(moe->router_weight);
        always_decoded(moe->shared_gate);
      }
    }
  return need;
}

uint64_t number_in(const char* file, std::string_view key, uint64_t unit) {
  std::ifstream in(file);
  for (std::string word; in >> word;) {
    if (!key.empty() && word != key) continue;
    if (!key.empty() && !(in >> word)) break;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() ? value * unit : std::numeric_limits<uint64_t>::max();
  }
  return std::numeric_limits<uint64_t>::max();
}

}  // namespace

// Keys and values of all tokens; recurrent state, and the copies of it that a cache keeps to be cut back to.
uint64_t kv_bytes(const ModelPlan& plan, int context, std::span<const uint8_t> passes) {
  constexpr int kMarks = 16, kSpacing = 32;  // ReferenceCache's
  const auto states = uint64_t(context > 0 ? 1 + std::min(kMarks, context / kSpacing) : 0);
  uint64_t floats = 0;
  for (size_t i = 0; i < plan.layers.size(); ++i)
    for (const Sublayer& sublayer : plan.layers[i].sublayers)
      floats += (kv_floats(sublayer.op) * uint64_t(context) + state_floats(sublayer.op) * states) *
                (passes.empty() ? 1 : passes[i]);
  return floats * sizeof(float);
}

MemoryEstimate estimate_memory(std::string_view backend, const ModelPlan& plan, const Checkpoint&, int context,
                               std::span<const uint8_t> passes) {
  const bool reference = backend == "reference" || (backend == "auto" && !missing_on_cpu(plan).empty());
  MemoryEstimate need;
  if (reference)
    need.decoded = uint64_t(plan.parameters()) * sizeof(float);
  else
    need = cpu_weights(plan);
  need.weights = need.in_file + need.decoded;
  need.kv = kv_bytes(plan, context, passes);
  need.workspace = kProgramBytes + (reference ? reference_workspace_bytes(plan, context) + kLibTorchBytes
                                              : cpu_workspace_bytes(plan, context));
  return need;
}

std::string memory_text(const MemoryEstimate& need) {
  std::string weights = bytes_text(need.weights);
  if (need.in_file > 0 && need.decoded >= 100'000)
    weights += fmt::format(", of which {} decoded", bytes_text(need.decoded));
  return fmt::format("{} (weights {}, keys and values {}, workspace {})", bytes_text(need.total()), weights,
                     bytes_text(need.kv), bytes_text(need.workspace));
}

uint64_t available_memory() {
  const uint64_t machine = number_in("/proc/meminfo", "MemAvailable:", 1024);
  const uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "", 1);
  const uint64_t used = number_in("/sys/fs/cgroup/memory.current", "", 1);
  const uint64_t cache = number_in("/sys/fs/cgroup/memory.stat", "file", 1);  // can be given back
  if (limit == std::numeric_limits<uint64_t>::max() || used == std::numeric_limits<uint64_t>::max()) return machine;
  const uint64_t taken = used - std::min(used, cache == std::numeric_limits<uint64_t>::max() ? 0 : cache);
  return std::min(machine, limit - std::min(limit, taken));
}

Result<void> check_fits(const MemoryEstimate& need, uint64_t available, const std::string& what) {
  if (need.total() <= available) return {};
  return fail(ErrorCode::kMemory, fmt::format("needs {}; {} are available.", memory_text(need), bytes_text(available)),
              what, "inspect shows the model without loading it; a quantised release or the other backend may fit.");
}

}  // namespace switchyard

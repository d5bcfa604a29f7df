// Bytes that a decoded token reads, counted where kernels load, against the bytes of the weights that it needs:
// routers, attention, chosen experts, head. One weight read twice, or a block that reads rows of nobody, would show.
#include <fstream>
#include <iostream>

#include "tests/cuda_on_cpu/cuda_on_cpu.h"
// After the emulator:
#include "engine/backend/cuda/intrinsics.cuh"
#include "tests/cuda_on_cpu/device_on_cpu.h"
#include "tests/cuda_on_cpu/model_on_device.h"

namespace switchyard::cuda::testing {
namespace {

uint64_t bytes_of(const TensorRef& ref) {
  return ref ? uint64_t(ref.elements()) * uint64_t(bits(ref.dtype)) / 8 : 0;
}

// Matrices that one token reads; vectors (norms, biases) are not counted on either side.
uint64_t needed(const ModelPlan& plan) {
  uint64_t out = bytes_of(plan.lm_head) + bytes_of(plan.embedding) / uint64_t(plan.vocab);
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op))
        out += bytes_of(a->q) + bytes_of(a->k) + bytes_of(a->v) + bytes_of(a->o);
      if (const auto* a =
              std::get_if<LatentAttentionSpec>(&sublayer.op))  // kv_b's key rows are read as their transpose
        out += bytes_of(a->q) + bytes_of(a->q_a) + bytes_of(a->kv_a) + bytes_of(a->kv_b) + bytes_of(a->o);
      if (const auto* f = std::get_if<FfnSpec>(&sublayer.op))
        out += bytes_of(f->weights.gate) + bytes_of(f->weights.up) + bytes_of(f->weights.down);
      if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op)) {
        const FfnWeights& one = moe->experts.front();
        out += bytes_of(moe->router_weight) + bytes_of(moe->shared_gate) +
               uint64_t(moe->router.experts_per_token) * (bytes_of(one.gate) + bytes_of(one.up) + bytes_of(one.down));
        if (moe->shared)
          out += bytes_of(moe->shared->weights.gate) + bytes_of(moe->shared->weights.up) +
                 bytes_of(moe->shared->weights.down);
      }
    }
  return out;
}
uint64_t key_bytes(const ModelPlan& plan, uint64_t tokens) {
  uint64_t numbers = 0;
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op))
        numbers += 2 * uint64_t(a->kv_heads) * uint64_t(a->head_dim);
      if (const auto* a = std::get_if<LatentAttentionSpec>(&sublayer.op))
        numbers += uint64_t(a->kv_rank) + uint64_t(a->rope_dim);
    }
  return numbers * tokens * sizeof(float);
}

TEST(Traffic, ATokenReadsEachWeightThatItNeedsOnce) {
  for (const std::string name :
       {"demo", "olmoe_bf16", "qwen2_moe", "deepseek_v2_lite", "gpt_oss_bf16", "mixtral_f16"}) {
    const OpenModel model = OpenModel::open(name);
    const auto device = model.device({}, 64);
    const auto cache = device->new_cache(64);
    const std::vector<TokenId> ids{1, 2, 3};
    model.forward(*device, *cache, ids, {}, CaptureLevel::kLogits, LogitRows::kLast);
    forget_traffic();
    model.forward(*device, *cache, {ids.data(), 1});
    uint64_t weights = 0, keys = 0, launches = 0;
    std::cout << name << "\n";
    for (const auto& [kernel, traffic] : traffic_by_kernel()) {
      std::cout << "  " << kernel << ": " << traffic.launches << " launches, " << traffic.weights
                << " bytes of weights, " << traffic.keys << " of keys\n";
      weights += traffic.weights, keys += traffic.keys, launches += traffic.launches;
    }
    std::cout << "  all: " << weights << " bytes of weights, needed " << needed(model.plan()) << "; keys " << keys
              << ", needed " << key_bytes(model.plan(), 4) << "\n";
    EXPECT_NEAR(double(weights), double(needed(model.plan())), 0.05 * double(needed(model.plan()))) << name;
    // Latents have one key head for all query heads, of which a block takes two: it is read again by other blocks, from
    // the second cache where a device has one.
    if (name != "deepseek_v2_lite") {
      EXPECT_NEAR(double(keys), double(key_bytes(model.plan(), 4)), 0.05 * double(key_bytes(model.plan(), 4))) << name;
    }
    EXPECT_LE(launches, 12 * model.plan().layers.size() + 4) << name;
  }
}

}  // namespace
}  // namespace switchyard::cuda::testing

// A model on the device: what the cpu backend's loader made of the plan (cpu::Model), copied to where kernels read it.
// Experts for which the card has no room stay in pinned host memory, and the kernels read them there: for one token
// each weight is read once, so the bytes over the bus are those of a copy. Built on the opening thread, then immutable
// but for the expert tables.
#pragma once

#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "engine/backend/cpu/model.h"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/gate_tables.h"
#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

struct AttentionOnDevice {
  Matrix q, k, v, o;
  const float *q_bias = nullptr, *k_bias = nullptr, *v_bias = nullptr, *o_bias = nullptr;
  KeyPlace place;
  int heads = 0, rope = -1;
  QkNorm qk_norm = QkNorm::kNone;
  Norm q_norm, k_norm;
  float clip = 0, temperature_floor = 0, temperature_scale = 0;
  float scale = 1;
  int window = 0, chunk = 0;
  const float* sinks = nullptr;

  int step() const { return (heads + 2 * place.kv_heads) * place.head_dim; }
};

struct LatentOnDevice {
  Matrix q_a, q, kv_a, absorb, kv_b, o;
  const float *q_a_bias = nullptr, *kv_a_bias = nullptr, *o_bias = nullptr;
  KeyPlace place;
  int heads = 0, rope = -1, nope = 0, rope_dims = 0, value_dim = 0;
  Norm q_a_norm, kv_a_norm;
  float query_scale = 1, latent_scale = 1, scale = 1;
};

struct FeedForwardOnDevice {
  int row = -1;  // -1: the shared block alone
  ModelGate gate;
  Matrix router, shared_gate;
  FfnForm form, shared_form;
  std::vector<Expert> own;         // the checkpoint's, by id
  Expert* experts = nullptr;       // [experts] on the device: what stands in each place
  const Expert* shared = nullptr;  // on the device; null: none
  // Whether all their gate and up matrices, and all their down matrices, are bf16.
  bool bf16_units = false, bf16_down = false, shared_bf16_units = false, shared_bf16_down = false;
  const float* output_bias = nullptr;
  DType bias_type = DType::kF32;  // of the experts' biases, as the checkpoint stores them

  int width() const { return form.width > shared_form.width ? form.width : shared_form.width; }
};

struct SublayerOnDevice {
  int layer = 0;
  Norm norm;
  float factor = 1;
  std::variant<AttentionOnDevice, LatentOnDevice, FeedForwardOnDevice> op;
};

struct ModelOnDevice {
  int hidden = 0, vocab = 0;
  Matrix embedding, lm_head;
  float embedding_scale = 1, logit_scale = 1;
  const float *lm_head_bias = nullptr, *lm_head_columns = nullptr;
  Norm final_norm;
  std::vector<RopeSpec> ropes;
  std::vector<SublayerOnDevice> sublayers;
  std::vector<const FeedForwardOnDevice*> rows;  // by routing row
  size_t block_bytes = 0;                        // of kKeyBlock tokens in all layers
  Stored key_type = Stored::kF32;
  uint64_t device_bytes = 0, host_bytes = 0;  // of weights
  std::vector<Buffer> memory;
};

// What of the plan this backend lacks beside what the cpu backend lacks, in words; empty: it runs the plan.
std::string missing_on_cuda(const ModelPlan& plan);

// How many bytes a plan takes on the card: the largest that can be read off the plan, before loading.
struct CardEstimate {
  uint64_t dense = 0, experts = 0, keys = 0, workspace = 0, reserve = 0;
  uint64_t total() const { return dense + experts + keys + workspace + reserve; }
};
// passes: of Recipe; every pass of a layer keeps its own keys.
CardEstimate estimate_card(const ModelPlan& plan, int context, uint64_t card_bytes, std::span<const uint8_t> passes = {});
// "weights 10.0 GB, ..."; where experts must stay in host memory it says how many bytes.
std::string card_text(const CardEstimate& need, uint64_t free);

// room: bytes that weights may take on the card. The cpu model's matrices may be released afterwards.
Result<std::unique_ptr<ModelOnDevice>> load_on_device(const cpu::Model& model, Stored key_type, uint64_t room,
                                                      Stream& stream, Task* task);

}  // namespace switchyard::cuda

// ModelPlan: a checkpoint described as data, complete enough to run it. A family file
// (model/families/<name>.cpp) turns config.json and tensor names into a plan and holds no arithmetic;
// a backend executes plans and holds no family name. Kinds: specs/families.md, section 2.
// Immutable once built; read from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/ids.h"
#include "engine/model/dtype.h"
#include "engine/model/router_spec.h"

namespace switchyard {

// A vector or row-major matrix inside a named tensor of the checkpoint. All Linear weights are
// [rows = out, cols = in], y = x W^T. A packed tensor is addressed through `element_offset`.
struct TensorRef {
  std::string name;  // empty: absent
  int64_t rows = 0;  // 1 for a vector
  int64_t cols = 0;
  int64_t element_offset = 0;
  DType dtype = DType::kF32;  // as stored

  explicit operator bool() const { return !name.empty(); }
  int64_t elements() const { return rows * cols; }
};

enum class NormKind : uint8_t { kRms, kRmsFp32Weight, kRmsOnePlus, kLayerNorm };
struct NormSpec {
  NormKind kind = NormKind::kRms;
  TensorRef weight;
  TensorRef bias;  // layer norm only; may be absent
  float eps = 1e-6f;
};

enum class RopeKind : uint8_t { kNone, kHalf, kInterleaved };
struct RopeSpec {
  RopeKind kind = RopeKind::kNone;
  int dims = 0;                  // rotated dimensions of a head, the first ones
  std::vector<float> inv_freq;   // [dims / 2], scaling (linear, llama3, yarn, ...) already in it
  float attention_factor = 1.0f; // multiplies cos and sin
};

enum class QkNorm : uint8_t { kNone, kFullVector, kPerHead };  // both before rope
struct AttentionSpec {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;                // multiplies q.k
  TensorRef q, k, v, o;           // q [heads*head_dim, hidden], k and v [kv_heads*head_dim, hidden]
  TensorRef q_bias, k_bias, v_bias, o_bias;
  QkNorm qk_norm = QkNorm::kNone;
  NormSpec q_norm, k_norm;
  float clip_qkv = 0;             // 0: none; else q, k, v are limited to +-clip_qkv, after qk_norm, before rope
  RopeSpec rope;
  int sliding_window = 0;         // W: key j visible to query i iff i - W < j <= i; 0: all j <= i
};

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// Gated linear unit: down(act(gate x) * (up x)).
struct GluWeights {
  TensorRef gate, up;  // [width, hidden]
  TensorRef down;      // [hidden, width]
};
struct GluSpec {
  Activation activation = Activation::kSilu;
  int width = 0;
  GluWeights weights;
};

struct MoeSpec {
  RouterSpec router;
  TensorRef router_weight;  // [experts, hidden]
  TensorRef router_bias;    // [experts], iff router.has_logit_bias
  TensorRef select_bias;    // [experts], iff router.has_select_bias
  Activation activation = Activation::kSilu;
  int width = 0;                    // of one expert
  std::vector<GluWeights> experts;  // [router.experts]
};

struct LayerPlan {
  NormSpec attention_norm;
  AttentionSpec attention;
  NormSpec ffn_norm;
  std::variant<GluSpec, MoeSpec> ffn;

  const MoeSpec* moe() const { return std::get_if<MoeSpec>(&ffn); }
};

struct ModelPlan {
  std::string family;        // model_type, for people only
  DType dtype = DType::kF32; // of the matrices
  int hidden = 0;
  int vocab = 0;
  int context = 0;           // max_position_embeddings
  TensorRef embedding;       // [vocab, hidden]
  NormSpec final_norm;
  TensorRef lm_head;         // [vocab, hidden]; the embedding where tied
  bool tied = false;
  std::vector<LayerPlan> layers;
  std::vector<int> moe_layers;   // model layer of each routing row, ascending
  std::vector<TokenId> eos_ids;  // from generation_config.json, else config.json
  std::optional<TokenId> bos_id;

  const MoeSpec& moe(int moe_layer) const { return *layers[moe_layers[moe_layer]].moe(); }
  int max_experts() const;            // over the MoE layers
  int max_experts_per_token() const;  // over the MoE layers
  int64_t parameters() const;         // all, each tensor once
  int64_t active_parameters() const;  // read for one token: dense parts and k experts a layer
};

}  // namespace switchyard

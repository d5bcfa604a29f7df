// ModelPlan: a checkpoint described as data, complete enough to run it. A family file
// (model/families/<name>.cpp) turns config.json and tensor names into a plan and holds no arithmetic;
// a backend executes plans and holds no family name. Kinds: specs/families.md, section 2.
// Immutable once built; read from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/base/ids.h"
#include "engine/model/dtype.h"
#include "engine/model/router_spec.h"

namespace switchyard {

struct QuantLayout;  // engine/model/quantised.h

// A vector or matrix inside a named tensor of the checkpoint. All Linear weights are [rows = out, cols = in],
// y = x W^T, whatever the file's order: packed, transposed and interleaved tensors are addressed by offset and
// strides, in elements of the stored (decoded) tensor. Dense (row_stride 0 or cols, col_stride 1) plain tensors
// can be used in place; everything else is read through WeightStore::read().
struct TensorRef {
  std::string name;  // empty: absent
  int64_t rows = 0;  // 1 for a vector
  int64_t cols = 0;
  int64_t element_offset = 0;
  int64_t row_stride = 0;  // 0: cols
  int64_t col_stride = 1;
  int64_t block_rows = 0;    // > 0: the rows come in blocks of so many, whose starts are block_stride elements apart
  int64_t block_stride = 0;  // (a part of every head of a fused projection)
  DType dtype = DType::kF32;                     // as stored
  std::shared_ptr<const QuantLayout> quantised;  // null: elements are stored as they are

  explicit operator bool() const { return !name.empty(); }
  int64_t elements() const { return rows * cols; }
  bool in_place() const { return !quantised && block_rows == 0 && col_stride == 1 && (row_stride == 0 || row_stride == cols); }
};

enum class NormKind : uint8_t { kNone, kRms, kRmsFp32Weight, kRmsOnePlus, kLayerNorm };
struct NormSpec {
  NormKind kind = NormKind::kNone;
  TensorRef weight;  // absent: all ones
  TensorRef bias;    // layer norm only; may be absent
  float eps = 1e-6f;
};

enum class RopeKind : uint8_t { kNone, kHalf, kInterleaved };
// What changes once a sequence has more than `original` tokens.
enum class RopeGrowth : uint8_t {
  kNone,
  kDynamic,   // theta becomes theta * (factor * tokens / original - (factor - 1))^(dims / (dims - 2))
  kLongRope,  // long_inv_freq and long_attention_factor hold
};
// rope_frequencies() (engine/model/rope.h) gives the numbers in force for a sequence.
struct RopeSpec {
  RopeKind kind = RopeKind::kNone;
  int dims = 0;                   // rotated dimensions of a head, the first ones
  std::vector<float> inv_freq;    // [dims / 2], scaling (linear, llama3, yarn, ...) already in it
  float attention_factor = 1.0f;  // multiplies cos and sin
  RopeGrowth growth = RopeGrowth::kNone;
  int original = 0;
  std::vector<float> long_inv_freq;
  float long_attention_factor = 1.0f;
  float theta = 0, factor = 1;  // of kDynamic

  bool operator==(const RopeSpec&) const = default;
};

// After the projection: before rope but for the two that say otherwise. kL2PostRope has no weights:
// x / sqrt(mean(x^2) + eps) of a head.
enum class QkNorm : uint8_t { kNone, kFullVector, kPerHead, kPerHeadPostRope, kL2PostRope };

// Grouped-query attention: the softmax mixer of most families, encoder self-attention and cross-attention.
struct AttentionSpec {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;       // multiplies q.k
  TensorRef q, k, v, o;  // q [heads*head_dim, hidden], k and v [kv_heads*head_dim, hidden]
  TensorRef q_bias, k_bias, v_bias, o_bias;
  TensorRef gate, gate_bias;  // [heads*head_dim, hidden]: the mixed heads are multiplied by sigmoid(gate x + bias)
  QkNorm qk_norm = QkNorm::kNone;
  NormSpec q_norm, k_norm;
  float clip_qkv = 0;  // 0: none; else q, k, v are limited to +-clip_qkv, after qk_norm, before rope
  RopeSpec rope;
  int sliding_window = 0;       // W: key j visible to query i iff i - W < j <= i; 0: all j <= i
  int chunk = 0;                // C: key j visible iff j <= i and i / C == j / C; 0: no chunks
  TensorRef sinks;              // [heads]: a logit that takes part in the softmax and has no value
  float temperature_floor = 0;  // f > 0: q times 1 + temperature_scale * log1p(floor((pos + 1) / f))
  float temperature_scale = 0;
  bool causal = true;  // false: encoder, every key is visible
  bool cross = false;  // keys and values from the encoder's output
  // T5: score += bias[bucket(j - i)][head]; buckets as in families.md 1.12, both directions iff not causal.
  TensorRef position_bias;  // [buckets, heads]
  int position_buckets = 0;
  int position_max_distance = 0;
  // doge: score += the `mask_keep` largest of exp(mask_a[h] * softplus(mask_dt v_j)), -inf elsewhere.
  TensorRef mask_a, mask_dt, mask_dt_bias;  // [kv_heads], [kv_heads, kv_heads*head_dim], [kv_heads]
  int mask_keep = 0;
};

// Multi-head latent attention (families.md 1.5, 1.6). A head of q and k is [nope | rope].
struct LatentAttentionSpec {
  int heads = 0, nope_dim = 0, rope_dim = 0, value_dim = 0, kv_rank = 0;
  float scale = 0;
  TensorRef q;              // [heads*(nope+rope), hidden] or, with q_a, [heads*(nope+rope), q_rank]
  TensorRef q_a, q_a_bias;  // [q_rank, hidden]
  NormSpec q_a_norm;
  TensorRef kv_a, kv_a_bias;            // [kv_rank + rope, hidden]: latent, then the key's rope slice for all heads
  NormSpec kv_a_norm;                   // of the latent
  TensorRef kv_b;                       // [heads*(nope+value), kv_rank]
  TensorRef o, o_bias;                  // [hidden, heads*value]
  float q_scale = 1, latent_scale = 1;  // longcat: of q, and of the normed latent
  RopeSpec rope;
};

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// What one feed-forward block, dense or expert, computes.
enum class FfnKind : uint8_t {
  kGlu,        // down(act(gate x) * (up x))
  kGluOss,     // gpt-oss: g = min(gate x, limit), u = clamp(up x, limit); down((u + 1) * g * sigmoid(alpha g))
  kGluDouble,  // openmoe: gate x is [2 width], halves (a, b): down(a * b * sigmoid(b) * (up x))
  kMlp,        // down(act(up x)), no gate
  kRankOne,    // doge: act(down_row . x) * up_row; `gate` is the row of down_embed, `down` the row of up_embed
};
struct FfnShape {
  FfnKind kind = FfnKind::kGlu;
  Activation activation = Activation::kSilu;
  int width = 0;
  float limit = 0, alpha = 0;  // of kGluOss
};
struct FfnWeights {
  TensorRef gate, up;                       // [width, hidden]
  TensorRef down;                           // [hidden, width]
  TensorRef gate_bias, up_bias, down_bias;  // may be absent
};
struct FfnSpec : FfnShape {
  FfnWeights weights;
};

// Tensors of a router; the rule is `router`.
struct RoutedSpec {
  RouterSpec router;
  TensorRef router_weight;  // [experts, hidden]; product key: [2 * sqrt(experts), hidden]
  TensorRef router_bias;    // [experts], iff router.has_logit_bias
  TensorRef select_bias;    // [experts], iff router.has_select_bias
};

struct MoeSpec : RoutedSpec {
  FfnShape expert;
  std::vector<FfnWeights> experts;  // [router.experts - identity_experts]
  int identity_experts = 0;         // the last ones: y = x
  std::optional<FfnSpec> shared;    // added to every token
  TensorRef shared_gate;            // [1, hidden]: the shared output is multiplied by sigmoid(shared_gate x)
  TensorRef output_bias;            // [hidden], added once
};

// jetmoe: attention whose query and output projections are experts of one router; heads = kv_heads * k,
// slot 0's heads first, keys and values repeated once per slot.
struct MixtureAttentionSpec : RoutedSpec {
  AttentionSpec attention;           // kv_heads, head_dim, scale, rope, k, v; no q, o
  std::vector<TensorRef> q_experts;  // [kv_heads*head_dim, hidden]
  std::vector<TensorRef> o_experts;  // [hidden, kv_heads*head_dim]
  TensorRef output_bias;             // [hidden]
};

// minimax: per head S_t = exp(-slope) S_{t-1} + k^T v, y = norm(q S) * sigmoid(gate x), q k v = silu(qkv x).
struct LightningSpec {
  int heads = 0, head_dim = 0;
  Activation activation = Activation::kSilu;  // of q, k and v
  TensorRef qkv;              // [3*heads*head_dim, hidden], per head q, k, v
  TensorRef gate, o;          // [heads*head_dim, hidden], [hidden, heads*head_dim]
  NormSpec norm;              // over heads*head_dim
  std::vector<float> slopes;  // [heads]
};

// qwen3_next: gated delta rule (families.md 1.23).
struct DeltaNetSpec {
  int key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, kernel = 0;
  TensorRef qkvz, ba;        // in_proj_qkvz, in_proj_ba
  TensorRef conv;            // [2*key_heads*key_dim + value_heads*value_dim, kernel], depthwise, causal
  TensorRef dt_bias, a_log;  // [value_heads]
  NormSpec norm;             // over value_dim, before the gate silu(z)
  TensorRef o;
};

// jamba: selective state space, Mamba 1 (families.md 1.21).
struct MambaSpec {
  int inner = 0, state = 0, kernel = 0, dt_rank = 0;
  TensorRef in, in_bias, conv, conv_bias, x, dt, dt_bias, a_log, d, out, out_bias;  // in [2*inner, hidden]: x, gate
  NormSpec dt_norm, b_norm, c_norm;
};

// lfm2: y = out(C * conv(B * x)), depthwise causal (families.md 1.22).
struct ShortConvSpec {
  int kernel = 0;
  TensorRef in, in_bias, conv, conv_bias, out, out_bias;  // in [3*hidden, hidden]: B, C, x
};

using SublayerOp = std::variant<AttentionSpec, LatentAttentionSpec, MixtureAttentionSpec, LightningSpec, DeltaNetSpec,
                                MambaSpec, ShortConvSpec, FfnSpec, MoeSpec>;

// One update of the residual stream h:
//   x = norm(h); y = post_norm(op(x)); h = base_scale * base_weight * (base_is_normed ? x : h) + scale * y.
struct Sublayer {
  NormSpec norm;  // kNone: x = h
  SublayerOp op;
  NormSpec post_norm;  // kNone: as it is
  float scale = 1;
  float base_scale = 1;
  bool base_is_normed = false;
  TensorRef base_weight;  // [hidden]; absent: ones
  // y is added when the layer's other sublayers are done (longcat's shortcut); `norm` is that of the next sublayer.
  bool deferred = false;

  const RoutedSpec* routed() const;  // nullptr: has no router
};

struct LayerPlan {
  std::vector<Sublayer> sublayers;  // in order

  // The first sublayer of this kind; find: nullptr where there is none, get: there is one.
  template <class Op>
  const Op* find() const {
    for (const Sublayer& sublayer : sublayers)
      if (const Op* op = std::get_if<Op>(&sublayer.op)) return op;
    return nullptr;
  }
  template <class Op>
  Op* find() {
    return const_cast<Op*>(std::as_const(*this).find<Op>());
  }
  template <class Op>
  const Op& get() const {
    return *find<Op>();
  }
  template <class Op>
  Op& get() {
    return *find<Op>();
  }
  bool routes() const;
};

// Where a routing row of the model is made; one row per router, in the order of execution.
struct RoutingRow {
  int layer = 0;  // index into ModelPlan::layers
  int sublayer = 0;
};

struct ModelPlan {
  std::string family;         // model_type, for people only
  DType dtype = DType::kF32;  // of the matrices
  int hidden = 0;
  int vocab = 0;
  int context = 0;      // max_position_embeddings
  TensorRef embedding;  // [vocab, hidden]
  TensorRef decoder_embedding;  // [vocab, hidden]; absent: `embedding` serves the decoder too
  float embedding_scale = 1;
  // nllb: added to the embedding: [sin, cos] of p * exp(-i ln(1e4) / (hidden / 2 - 1)), i < hidden / 2, where p is
  // padding_id + 1 for the first token of a side; a padding token gets zeros and does not count.
  bool sinusoidal_positions = false;
  int padding_id = -1;
  NormSpec final_norm;
  TensorRef lm_head;             // [vocab, hidden]; the embedding where tied
  TensorRef lm_head_bias;        // [vocab]
  float logit_scale = 1;         // multiplies the logits (granite: 1 / logits_scaling)
  bool normalised_head = false;  // columns of lm_head are divided by their L2 norm over dim 0 + 1e-7 (bailing)
  bool tied = false;
  // Encoder-decoder: layers [0, encoder_layers) are the encoder's, the rest the decoder's. 0: decoder only.
  int encoder_layers = 0;
  NormSpec encoder_norm;      // the encoder's final norm
  TokenId decoder_start = 0;  // first token of the decoder
  std::optional<TokenId> forced_bos;  // what the decoder gives first, whatever its logits: nllb's target language
  std::vector<LayerPlan> layers;
  std::vector<RoutingRow> rows;  // every router, see number_rows()
  std::vector<int> moe_layers;   // model layer of each routing row, not falling; rows[i].layer
  std::vector<TokenId> eos_ids;  // from generation_config.json, else config.json
  std::optional<TokenId> bos_id;

  const RoutedSpec& routed(int row) const;  // the router of a row
  const MoeSpec& moe(int row) const;        // of a row that is a feed-forward MoE
  std::string row_name(int row) const;      // "layer 3", "layer 3 attention", "encoder layer 3"
  bool encoder_row(int row) const { return moe_layers[size_t(row)] < encoder_layers; }
  // True where routing depends on which tokens run together (capacity, doge's product keys): a prompt is
  // run in one piece, and a token after another gives other numbers.
  bool couples_tokens() const;
  // True where some state cannot be cut back to an earlier token (recurrent mixers).
  bool recurrent() const;
  int max_experts() const;            // over the rows
  int max_experts_per_token() const;  // over the rows
  int64_t parameters() const;         // all, each tensor once
  int64_t active_parameters() const;  // read for one token: dense parts and k experts a layer
};

// Fills rows and moe_layers from the layers, in the order of execution.
void number_rows(ModelPlan& plan);

// Calls visit(const TensorRef&) for every present tensor of the sublayer, once each; experts included.
void for_each_tensor(const Sublayer& sublayer, const std::function<void(const TensorRef&)>& visit);
// The same over the whole plan; a tied head once.
void for_each_weight(const ModelPlan& plan, const std::function<void(const TensorRef&)>& visit);

}  // namespace switchyard

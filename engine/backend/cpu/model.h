// A ModelPlan made ready for the kernels: matrices point into the mapped file, or into a dense copy where the
// file's order or type is not the kernels'; vectors are floats.
// Built once by make_cpu_backend(); immutable, read by the engine thread and the pool.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/backend/cpu/kernels.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::cpu {

// In float arithmetic the kinds of root mean square norm differ by the weight alone.
struct Norm {
  enum class Kind : uint8_t { kNone, kRms, kLayer } kind = Kind::kNone;
  float eps = 0;
  std::vector<float> weight;  // kRmsOnePlus: 1 + the stored one; absent: ones
  std::vector<float> bias;    // kLayer; absent: zeros
};

// Keys and values of one attention sublayer and how queries see them.
struct KeyShape {
  int cache = 0;  // its place in the cache
  int heads = 0, kv_heads = 0, head_dim = 0;
  int latent = 0;            // > 0: values are the first `latent` dimensions of the keys
  float scale = 1;           // multiplies q.k
  int window = 0;            // 0: all earlier keys
  int chunk = 0;             // 0: no chunks
  std::vector<float> sinks;  // [heads]; empty: none

  int64_t query_cols() const { return int64_t(heads) * head_dim; }
  int64_t key_cols() const { return int64_t(kv_heads) * head_dim; }
  int value_dim() const { return latent > 0 ? latent : head_dim; }
  int64_t value_cols() const { return int64_t(heads) * value_dim(); }
  // First key that the query at this position sees.
  int first_visible(int position) const {
    const int windowed = window > 0 ? position - window + 1 : 0;
    const int chunked = chunk > 0 ? position - position % chunk : 0;
    return windowed > chunked ? (windowed > 0 ? windowed : 0) : chunked;
  }
};

struct Attention {
  int place = 0;  // of its first linear (engine/model/linears.h)
  KeyShape keys;
  Matrix q, k, v, o;
  Matrix gate;                                        // no rows: none
  std::vector<float> q_bias, k_bias, v_bias, o_bias;  // empty: none
  QkNorm qk_norm = QkNorm::kNone;
  Norm q_norm, k_norm;
  float clip = 0;
  int rope = -1;  // index into Model::ropes; -1: none
  float temperature_floor = 0, temperature_scale = 0;
};

// Attention over latents: a head's queries are turned into the latent space, so that keys are stored and
// read once for all heads.
struct LatentAttention {
  int place = 0;  // as above
  KeyShape keys;                                                  // one kv head of [latent | rope]
  int nope_dim = 0, rope_dim = 0, value_dim = 0, query_rank = 0;  // query_rank 0: q reads the hidden vector
  Matrix q_a, q, kv_a, o;
  Matrix absorb;  // [heads * latent, nope_dim]: the transposed key rows of kv_b, head by head
  Matrix kv_b;    // [heads * (nope_dim + value_dim), latent]
  std::vector<float> q_a_bias, kv_a_bias, o_bias;
  Norm q_a_norm, kv_a_norm;
  float q_scale = 1, latent_scale = 1;
  int rope = -1;
};

struct FfnForm {
  FfnKind kind = FfnKind::kGlu;
  Unit unit = Unit::kSilu;
  int width = 0;
  float limit = 0, alpha = 0;
};

struct Expert {
  int place = 0;  // of its first linear
  Matrix gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  // empty: none
  DType bias_type = DType::kF32;                     // as stored
};

struct FeedForward {
  int row = -1;  // routing row; -1: nothing but the shared block
  RouterSpec router;
  Matrix router_weight;
  std::vector<float> router_bias, select_bias;  // empty: none
  FfnForm form;
  std::vector<Expert> experts;  // router.experts without the identities, which come last
  // The block that every token takes: a shared expert, or all of a dense layer.
  FfnForm shared_form;
  std::optional<Expert> shared;
  Matrix shared_gate;              // no rows: none
  std::vector<float> output_bias;  // empty: none
};

// x = norm(h); y = post_norm(op(x)); h = base * (base_is_normed ? x : h) + scale * y.
struct Sublayer {
  Norm norm, post_norm;
  std::variant<Attention, LatentAttention, FeedForward> op;
  float scale = 1;
  std::vector<float> base;  // [hidden]; empty: ones
  bool base_is_normed = false;
  bool deferred = false;

  bool routes() const {
    const auto* feed_forward = std::get_if<FeedForward>(&op);
    return feed_forward && feed_forward->row >= 0;
  }
  // nullptr: keeps no keys.
  const KeyShape* keys() const {
    if (const auto* attention = std::get_if<Attention>(&op)) return &attention->keys;
    if (const auto* attention = std::get_if<LatentAttention>(&op)) return &attention->keys;
    return nullptr;
  }
  // y can be added to h as it is made.
  bool adds_in_place() const {
    return post_norm.kind == Norm::Kind::kNone && base.empty() && !base_is_normed && !deferred;
  }
};

struct Layer {
  std::vector<Sublayer> sublayers;
  bool defers() const {
    for (const Sublayer& sublayer : sublayers)
      if (sublayer.deferred) return true;
    return false;
  }
};

struct Model {
  int hidden = 0, vocab = 0, context = 0;
  Matrix embedding, lm_head;
  float embedding_scale = 1, logit_scale = 1;
  std::vector<float> lm_head_bias;    // empty: none
  std::vector<float> lm_head_column;  // [hidden]: multiplies the head's columns; empty: ones
  Norm final_norm;
  std::vector<RopeSpec> ropes;   // each different one once
  std::vector<KeyShape> caches;  // of the attention sublayers, in order
  std::vector<Layer> layers;
  std::vector<std::unique_ptr<unsigned char[]>> copies;  // what matrices point to that is not in the file
};

// The first thing of the plan that this backend lacks, in words; empty: it runs the plan.
std::string missing_kind(const ModelPlan& plan);

// Throws std::bad_alloc. Reads only the weights that need a copy.
Result<Model> load_model(const ModelPlan& plan, const WeightStore& weights, Task* task);

}  // namespace switchyard::cpu

// A ModelPlan made ready for the kernels: matrices point into the mapped file, vectors are floats.
// Built once by make_cpu_backend(); immutable, read by the engine thread and the pool.
#pragma once

#include <string>
#include <vector>

#include "engine/backend/cpu/kernels.h"
#include "engine/base/result.h"
#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::cpu {

// Root mean square norm; in float arithmetic its kinds differ by the weight alone.
struct Norm {
  float eps = 0;
  std::vector<float> weight;  // kRmsOnePlus: 1 + the stored one
};

struct Attention {
  int heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0, clip = 0;
  Matrix q, k, v, o;
  std::vector<float> q_bias, k_bias, v_bias, o_bias;  // empty: none
  QkNorm qk_norm = QkNorm::kNone;
  Norm q_norm, k_norm;
  int rope = -1;   // index into Model::ropes; -1: none
  int window = 0;  // 0: all earlier keys

  int64_t query_cols() const { return int64_t(heads) * head_dim; }
  int64_t key_cols() const { return int64_t(kv_heads) * head_dim; }
};

struct Glu {
  Matrix gate, up, down;
};

// A dense layer is one expert that every token takes with weight 1.
struct FeedForward {
  int row = -1;  // routing row; -1: dense
  RouterSpec router;
  Matrix router_weight;
  std::vector<float> router_bias, select_bias;  // empty: none
  Unit unit = Unit::kSilu;
  int width = 0;
  std::vector<Glu> experts;
};

struct Layer {
  Norm attention_norm, ffn_norm;
  Attention attention;
  FeedForward ffn;
};

struct Model {
  int hidden = 0, vocab = 0, context = 0;
  Matrix embedding, lm_head;
  Norm final_norm;
  std::vector<RopeSpec> ropes;  // each different one once
  std::vector<Layer> layers;
};

// The first thing of the plan that this backend lacks, in words; empty: it runs the plan.
std::string missing_kind(const ModelPlan& plan);

Result<Model> load_model(const ModelPlan& plan, const WeightStore& weights);

}  // namespace switchyard::cpu

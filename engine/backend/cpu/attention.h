// The attention sublayers: grouped-query attention, and attention over latents.
// Run by the executor on the engine thread; one of each serves all layers.
#pragma once

#include <vector>

#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/attend.h"
#include "engine/backend/cpu/step.h"

namespace switchyard::cpu {

class GroupedAttention {
 public:
  // in: [count] normed inputs.
  void run(const Step& step, const Attention& spec, const float* const* in, const Sum& sum);

 private:
  void finish_heads(const Step& step, const Attention& spec, int token) const;

  Rows qkv_, gate_, mixed_;
  std::vector<float*> q_, k_, v_, gate_out_, mixed_out_;
  Attend attend_;
};

// Keys and values are c = norm(latent of kv_a x), shared by all heads, and one rotated slice k_r (families.md 1.5).
// With W_k, W_v a head's rows of kv_b: q . [W_k c | k_r] = [W_k^T q_nope | q_r] . [c | k_r], and the sum of
// p (W_v c) is W_v (sum of p c). Prefill and decode both compute the right sides.
class LatentAttentionRun {
 public:
  void run(const Step& step, const LatentAttention& spec, const float* const* in, const Sum& sum);

 private:
  void project(const Step& step, const LatentAttention& spec, const float* const* in);
  void finish_latent(const Step& step, const LatentAttention& spec, int token) const;
  void finish_query(const Step& step, const LatentAttention& spec, int token) const;

  Rows query_low_, query_, key_, absorbed_, mixed_, values_;
  std::vector<float*> query_low_out_, query_out_, key_out_, absorbed_out_, mixed_out_, values_out_;
  std::vector<const float*> head_in_;  // per worker [tokens]
  std::vector<float*> head_out_;
  Attend attend_;
};

}  // namespace switchyard::cpu

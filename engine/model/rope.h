// Rotary position embedding: from config.json to inverse frequencies, in the float32 steps of transformers.
// Called by the family files; any thread. Formulas: specs/families.md, section 1.0.
#pragma once

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/plan.h"

namespace switchyard {

struct Rope {
  RopeSpec spec;
  int context = 0;  // tokens the model is meant for: `context` of read_rope, with `dynamic` times its factor
  // DeepSeek's factor of the softmax scale: m^2 with m = 0.1 mscale_all_dim ln(factor) + 1 (families.md 1.5).
  float score_scale = 1;
};

// What a family says where config.json is silent.
struct RopeDefaults {
  double theta = 1e4;
  double partial_factor = 1.0;
  const Json* parameters = nullptr;  // of rope_parameters and rope_scaling, both absent
  bool reads_alpha = false;          // `dynamic` with `alpha` is a fixed theta * alpha^(dims / (dims - 2)) (hunyuan)
};

// config: `rope_parameters` (transformers 5) or `rope_theta`, `rope_scaling`, `partial_rotary_factor` (4).
// Types: default, linear, dynamic, llama3, yarn, longrope; others are refused by name.
Result<Rope> read_rope(const JsonView& config, RopeKind kind, int head_dim, int context, const RopeDefaults& defaults);

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [dims / 2]
  float attention_factor = 1.0f;
};
// For new tokens of a sequence that has `tokens` tokens once they are in it, as transformers does: keys that were
// cached while the sequence was shorter keep the frequencies of then.
RopeFrequencies rope_frequencies(const RopeSpec& spec, int64_t tokens);

}  // namespace switchyard

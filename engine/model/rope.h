// Rotary position embedding: from config.json to inverse frequencies, in the float32 steps of transformers.
// Called by the family files; any thread. Formulas: specs/families.md, section 1.0.
#pragma once

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/plan.h"

namespace switchyard {

struct Rope {
  RopeSpec spec;
  int context = 0;  // positions for which these frequencies are right; at most `context` of read_rope
  // DeepSeek's factor of the softmax scale: m^2 with m = 0.1 mscale_all_dim ln(factor) + 1 (families.md 1.5).
  float score_scale = 1;
};

// config: `rope_parameters` (transformers 5) or `rope_theta`, `rope_scaling`, `partial_rotary_factor` (4).
// Types: default, linear, llama3, yarn, longrope. longrope changes its factors beyond the original context;
// the plan holds the short ones and its context ends there. `dynamic` and unknown types are refused by name.
Result<Rope> read_rope(const JsonView& config, RopeKind kind, int head_dim, int context, double default_theta,
                       double default_partial = 1.0);

}  // namespace switchyard

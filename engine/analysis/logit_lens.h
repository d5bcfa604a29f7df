// The logit lens: what each sublayer's residual stream would predict against what the model predicts (specs/analyses.md
// A19). Pure; no files; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"

namespace switchyard {

// One token behind one sublayer. p: the model's own distribution, q: the lens'.
struct LensReading {
  double kl = 0;           // sum p ln(p / q), nats
  TokenId first = 0;       // of largest q; ties: lower id
  int rank = 0;            // of the model's first choice under q, from 0: how many ids are above it
  double probability = 0;  // of it under q
};
// logits: [vocab] each.
LensReading read_lens(std::span<const float> model, std::span<const float> lens);

// Of all tokens behind one sublayer.
struct LensPlace {
  int layer = 0, sublayer = 0;  // of ModelPlan::layers
  int pass = 0;                 // over the layer, where a layer path takes several
  std::vector<LensReading> tokens;

  double mean_kl() const;
  double mean_probability() const;
  double agreement() const;  // share of tokens whose first choice is the model's
};

}  // namespace switchyard

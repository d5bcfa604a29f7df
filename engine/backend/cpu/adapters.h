// Adapters on linear layers (engine/routing/adapters.h): every token's decision and A x, then B times it beside the
// base product. Owned by the executor, used by the sublayers on the engine thread.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/step.h"
#include "engine/routing/adapters.h"

namespace switchyard::cpu {

// What the adapters add to one product: B low[t], and what multiplies the base.
struct AdapterPart {
  Matrix b;  // [out, rank]
  int count = 0;
  std::vector<float> base;  // [count] multiplies the base product
  bool scales_base = false;
  std::vector<float> ones, factors;  // [count]
  Rows low_rows;                     // [count, rank] A x, each rank times its coefficient
  std::vector<float*> low;

  // Of the base product that is added with these weights: theirs times `base`.
  const float* base_factors(const float* weights);
  // Rows [begin, end) of a base product that stands in `out`.
  void add_rows(const Kernels& kernels, int64_t begin, int64_t end, float* const* out) const;
};

class AdapterRun {
 public:
  // Parts made before may be made anew.
  void begin() { used_ = 0; }
  // The part of a linear for `count` inputs; nullptr: no adapters stand there. tokens: of the chunk, whose inputs these
  // are; null: in order. Not from inside the pool.
  AdapterPart* prepare(const Step& step, int place, int count, const float* const* in, const int* tokens = nullptr);
  // Completes the product of a linear that stands in `out`, of all tokens.
  void complete(const Step& step, int place, const float* const* in, float* const* out);
  // Adds W x of all tokens to the sum, with the adapters.
  void multiply(const Step& step, const Matrix& w, int place, const float* const* in, const Sum& sum);

 private:
  std::vector<std::unique_ptr<AdapterPart>> parts_;
  size_t used_ = 0;
  struct Worker {
    AdapterScratch scratch;
    std::vector<float> coefficients;
  };
  std::vector<Worker> workers_;
  std::vector<float> weights_, scores_;  // [count, choices] of the part at hand; scores for frames only
};

}  // namespace switchyard::cpu

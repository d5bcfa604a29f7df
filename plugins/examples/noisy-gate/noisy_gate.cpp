// Noisy top-k gating (arXiv 1701.06538): H = z + sigma n, the k largest of H, weights by a softmax over them. The noise
// comes from the program's counter, so that a replay, a rewind and another backend draw the same.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <switchyard/plugin.hpp>

#include "noisy_gate.cu.h"  // kDeviceSource, by switchyard_device_source()

struct NoisyTopK : sy::Scheme {
  const char* device_source() const override { return kDeviceSource; }
  void route(const sy::Call& call, sy::Choice& out) override {
    const double sigma = call.parameter(0);
    const size_t experts = call.logits.size();
    uniform_.resize(2 * experts);
    noisy_.resize(experts);
    call.random(uint64_t(call.parameter(1)), uniform_);
    for (size_t e = 0; e < experts; ++e) {  // Box and Muller
      const double radius = std::sqrt(-2 * std::log(double(uniform_[2 * e])));
      const double noise = radius * std::cos(2 * std::numbers::pi * double(uniform_[2 * e + 1]));
      noisy_[e] = call.logits[e] + float(sigma * noise);  // a muted expert's -inf stays
    }
    float best = 0, sum = 0;
    for (uint32_t slot = 0; slot < call.in.k; ++slot) {
      const auto top = std::max_element(noisy_.begin(), noisy_.end());  // ties: the lower id
      if (std::isinf(*top)) break;
      if (slot == 0) best = *top;
      out.add(int32_t(top - noisy_.begin()), std::exp(*top - best));
      sum += out.weights().back();
      *top = -INFINITY;
    }
    for (float& weight : out.weights()) weight /= sum;
  }

 private:
  std::vector<float> uniform_, noisy_;
};

SWITCHYARD_PLUGIN(plugin) {
  plugin.scheme<NoisyTopK>("noisy-gate.noisy_top_k");
}

// A gating scheme: which experts a token takes and with what weight.
#include <algorithm>
#include <cmath>
#include <vector>

#include <switchyard/plugin.hpp>

struct Gate : sy::Scheme {
  void route(const sy::Call& call, sy::Choice& out) override {
    const double sharpness = call.parameter(0);  // in the order of plugin.json
    order_.resize(call.logits.size());
    for (size_t e = 0; e < order_.size(); ++e) order_[e] = int32_t(e);
    const auto k = std::min<size_t>(call.in.k, order_.size());
    std::partial_sort(order_.begin(), order_.begin() + long(k), order_.end(), [&](int32_t a, int32_t b) {
      return call.logits[size_t(a)] != call.logits[size_t(b)] ? call.logits[size_t(a)] > call.logits[size_t(b)] : a < b;
    });
    const float best = call.logits[size_t(order_[0])];
    float sum = 0;
    for (size_t slot = 0; slot < k; ++slot) {
      const float z = call.logits[size_t(order_[slot])];
      if (std::isinf(z)) break;  // muted
      out.add(order_[slot], float(std::exp(sharpness * double(z - best))));
      sum += out.weights().back();
    }
    for (float& weight : out.weights()) weight /= sum;
  }

 private:
  std::vector<int32_t> order_;  // kept, so that no call but the first allocates
};

SWITCHYARD_PLUGIN(plugin) { plugin.scheme<Gate>("@ID@.gate"); }

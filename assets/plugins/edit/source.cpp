// A logit edit: changes the router's output; the model's own router then decides.
#include <cmath>

#include <switchyard/plugin.hpp>

struct Edit : sy::Edit {
  void apply(const sy::Call& call, std::span<float> logits) override {
    const double pull = call.parameter(0);
    double sum = 0, count = 0;
    for (const float z : logits)
      if (!std::isinf(z)) sum += double(z), count += 1;  // -inf: muted, and stays so
    const double mean = count > 0 ? sum / count : 0;
    for (float& z : logits)
      if (!std::isinf(z)) z = float(mean + (1 - pull) * (double(z) - mean));
  }
};

SWITCHYARD_PLUGIN(plugin) { plugin.edit<Edit>("@ID@.edit"); }

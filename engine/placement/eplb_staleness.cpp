// See eplb_staleness.h.
#include "engine/placement/eplb_staleness.h"

#include "engine/placement/affinity_placement.h"

namespace switchyard {

std::vector<double> EplbStaleness::by_window(std::span<const double> of) const {
  std::vector<double> means(size_t(windows - 1), 0.0);
  for (size_t at = 0; at < of.size(); ++at) means[at / size_t(layers)] += of[at] / layers;
  return means;
}

std::vector<double> EplbStaleness::by_layer(std::span<const double> of) const {
  std::vector<double> means(size_t(layers), 0.0);
  for (size_t at = 0; at < of.size(); ++at) means[at % size_t(layers)] += of[at] / (windows - 1);
  return means;
}

Result<EplbStaleness> eplb_staleness(std::span<const float> windows, int layers, int experts, const EplbShape& shape,
                                     Task* task) {
  const size_t width = size_t(layers) * size_t(experts);
  EplbStaleness out{int(windows.size() / width), layers};
  if (out.windows < 2) return fail(ErrorCode::kUsage, "one window has no next one that its plan could be scored on.");
  std::vector<float> sum(width);
  for (size_t at = 0; at < windows.size(); ++at) sum[at % width] += windows[at];
  SY_TRY(const EplbPlan whole, plan_eplb(sum, layers, experts, shape));
  SY_TRY(EplbPlan previous, plan_eplb(windows.first(width), layers, experts, shape));
  const bool even = experts % shape.gpus == 0;
  const std::vector<int> contiguous = even ? contiguous_placement(1, experts, shape.gpus) : std::vector<int>();
  for (int w = 1; w < out.windows; ++w) {
    if (task != nullptr) {
      if (task->cancelled()) return fail(ErrorCode::kCancelled, "cancelled.");
      task->report(double(w) / out.windows, "scoring plans on later windows");
    }
    const auto loads = windows.subspan(size_t(w) * width, width);
    SY_TRY(EplbPlan own, plan_eplb(loads, layers, experts, shape));
    for (int l = 0; l < layers; ++l) {
      const auto layer = loads.subspan(size_t(l) * size_t(experts), size_t(experts));
      out.previous.push_back(balancedness(gpu_loads(previous, l, layer)));
      out.own.push_back(balancedness(gpu_loads(own, l, layer)));
      out.whole.push_back(balancedness(gpu_loads(whole, l, layer)));
      if (even) out.contiguous.push_back(balancedness(gpu_loads(contiguous, shape.gpus, layer)));
    }
    previous = std::move(own);
  }
  return out;
}

}  // namespace switchyard

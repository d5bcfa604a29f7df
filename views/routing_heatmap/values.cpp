#include "views/routing_heatmap/values.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

int width_of(const RunData& data) {
  return data.plan->max_experts();
}

// Load over the frames [from, to) that are still in memory; the number of those is added to `tokens`.
Load load_of(const RunData& data, uint64_t from, uint64_t to, uint64_t& tokens) {
  const int rows = int(data.plan->moe_layers.size());
  Load load(rows, width_of(data));
  for (uint64_t t = from; t < to; ++t) {
    const RoutingFrame* frame = data.frames[t].get();
    if (!frame || frame->header().capture == CaptureLevel::kOff) continue;
    for (int row = 0; row < rows; ++row)
      if (!load.feed(row, frame->ids(row), frame->header().slots)) return load;
    ++tokens;
  }
  return load;
}

}  // namespace

std::vector<double> relative_load(const RunData& data, const Load& load) {
  const int rows = int(data.plan->moe_layers.size()), width = width_of(data);
  std::vector<double> out(size_t(rows) * width, kNone);
  for (int row = 0; row < rows; ++row) {
    const int experts = data.plan->routed(row).router.experts;
    const auto counts = load.counts(row).first(size_t(experts));
    const double mean = double(load_stats(counts).total) / experts;
    for (int e = 0; e < experts; ++e) out[size_t(row) * width + e] = mean > 0 ? double(counts[e]) / mean : 0;
  }
  return out;
}

std::vector<double> shown_weights(const RunData& data, const TimeCursor& cursor) {
  const int rows = int(data.plan->moe_layers.size()), width = width_of(data);
  std::vector<double> out(size_t(rows) * width, kNone);
  const RoutingFrame* frame = data.shown(cursor);
  if (!frame || frame->header().capture < CaptureLevel::kWeights) return out;
  for (int row = 0; row < rows; ++row) {
    if (!frame->passed(row)) continue;
    std::fill_n(out.begin() + ptrdiff_t(row) * width, data.plan->routed(row).router.experts, 0.0);
    const auto ids = frame->used_ids(row);
    const auto weights = frame->weights(row);
    for (size_t slot = 0; slot < ids.size(); ++slot)
      if (ids[slot] < width) out[size_t(row) * width + ids[slot]] = weights[slot];
  }
  return out;
}

EditChange edit_change(const RunData& data) {
  EditChange out;
  if (!data.snapshot || data.snapshot->epochs.size() < 2) return out;
  const auto& epochs = data.snapshot->epochs;
  out.sentence = epochs.back().sentence;
  out.first_token = epochs.back().first_token;
  const uint64_t window = uint64_t(data.window), now = data.tokens();
  const uint64_t edge = std::min(out.first_token, now), floor = std::min(epochs[epochs.size() - 2].first_token, edge);
  const Load before = load_of(data, std::max(floor, edge > window ? edge - window : 0), edge, out.before_tokens);
  const Load after = load_of(data, std::max(edge, now > window ? now - window : 0), now, out.after_tokens);
  if (out.before_tokens == 0 || out.after_tokens == 0) return out;
  out.values = relative_load(data, after);
  const std::vector<double> native = relative_load(data, before);
  for (size_t i = 0; i < native.size(); ++i) out.values[i] -= native[i];
  return out;
}

}  // namespace switchyard

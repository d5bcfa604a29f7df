// See naee.h.
#include "engine/analysis/naee.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "engine/routing/decision.h"

namespace switchyard {

NaeeSearch::NaeeSearch(const RouterSpec& spec, int width) : spec_(spec), experts_(size_t(spec.experts)), width_(size_t(width)) {}

void NaeeSearch::routed(const Block& block, size_t token, std::span<const uint8_t> dropped, std::span<double> out) const {
  LayerRecipe recipe;
  recipe.muted.assign(dropped.begin(), dropped.end());
  const RouterInput in{.logits = std::span(block.logits).subspan(token * experts_, experts_), .describe = false};
  thread_local std::vector<float> scratch, weights;
  thread_local std::vector<ExpertId> ids;
  thread_local std::vector<SlotKind> kinds;
  const auto slots = size_t(slots_needed(spec_, &recipe));
  scratch.resize(scratch_needed(spec_, &recipe));
  weights.resize(slots), ids.resize(slots), kinds.resize(slots);
  const Decision decision = route(spec_, &recipe, in, scratch, {ids, weights, kinds});
  std::fill(out.begin(), out.end(), 0.0);
  for (int slot = 0; slot < decision.k_used; ++slot) {
    const float* y = block.outputs.data() + (token * experts_ + ids[size_t(slot)]) * width_;
    for (size_t i = 0; i < width_; ++i) out[i] += double(weights[size_t(slot)]) * y[i];
  }
}

void NaeeSearch::add_block(std::span<const float> logits, std::span<const float> outputs) {
  Block& block = blocks_.emplace_back();
  block.logits.assign(logits.begin(), logits.end());
  block.outputs.assign(outputs.begin(), outputs.end());
  const size_t tokens = logits.size() / experts_;
  block.whole.resize(tokens * width_);
  block.uses.resize(tokens * experts_);
  const std::vector<uint8_t> none(experts_);
  const auto slots = size_t(slots_needed(spec_, nullptr));
  std::vector<float> scratch(scratch_needed(spec_, nullptr)), weights(slots);
  std::vector<ExpertId> ids(slots);
  std::vector<SlotKind> kinds(slots);
  for (size_t t = 0; t < tokens; ++t) {
    routed(block, t, none, std::span(block.whole).subspan(t * width_, width_));
    const RouterInput in{.logits = std::span(block.logits).subspan(t * experts_, experts_), .describe = false};
    const Decision decision = route(spec_, nullptr, in, scratch, {ids, weights, kinds});
    for (int slot = 0; slot < decision.k_used; ++slot) block.uses[t * experts_ + ids[size_t(slot)]] = 1;
  }
}

// Gives up, with infinity, where it is above `best`.
double NaeeSearch::cost(const std::vector<uint8_t>& dropped, double best) const {
  double sum = 0;
  std::vector<double> out(width_);
  for (const Block& block : blocks_) {
    const size_t tokens = block.logits.size() / experts_;
    double squares = 0;
    for (size_t t = 0; t < tokens; ++t) {
      bool touched = false;  // a token that chose none of the dropped gives what it gave
      for (size_t e = 0; e < experts_ && !touched; ++e) touched = dropped[e] && block.uses[t * experts_ + e];
      if (!touched) continue;
      routed(block, t, dropped, out);
      for (size_t i = 0; i < width_; ++i) {
        const double change = block.whole[t * width_ + i] - out[i];
        squares += change * change;
      }
    }
    sum += std::sqrt(squares);
    if (sum > best) return std::numeric_limits<double>::infinity();
  }
  return sum;
}

double NaeeSearch::loss(std::span<const uint8_t> dropped) const {
  return cost({dropped.begin(), dropped.end()}, std::numeric_limits<double>::infinity());
}

Result<NaeeChoice> NaeeSearch::choose(int keep, uint64_t most_sets, const Task* task) const {
  if (spec_.has_select_bias || spec_.groups > 1)
    return fail(ErrorCode::kUsage, "NAEE knows routers that choose by their logits alone, without a selection bias or groups.");
  if (keep < spec_.experts_per_token || keep >= spec_.experts)
    return fail(ErrorCode::kUsage, fmt::format("{} of {} experts cannot stay.", keep, spec_.experts), "--keep",
                fmt::format("Keep {} to {}: a token needs {}.", spec_.experts_per_token, spec_.experts - 1, spec_.experts_per_token));
  const size_t gone = experts_ - size_t(keep);
  double sets = 1;
  for (size_t i = 0; i < gone; ++i) sets = sets * double(experts_ - i) / double(i + 1);
  NaeeChoice found;
  found.loss = std::numeric_limits<double>::infinity();
  found.exhaustive = sets <= double(most_sets);
  const auto stopped = [&] { return task && task->cancelled(); };
  std::vector<uint8_t> dropped(experts_), best;
  if (found.exhaustive) {
    std::fill_n(dropped.begin(), gone, uint8_t(1));  // the sets in rising order of their ids
    do {
      if (stopped()) return fail(ErrorCode::kCancelled, "stopped before every set was tried.");
      ++found.tried;
      const double here = cost(dropped, found.loss);
      if (here < found.loss) found.loss = here, best = dropped;
    } while (std::prev_permutation(dropped.begin(), dropped.end()));
  } else {
    for (size_t round = 0; round < gone; ++round) {
      double cheapest = std::numeric_limits<double>::infinity();
      size_t next = experts_;
      for (size_t e = 0; e < experts_; ++e) {
        if (dropped[e]) continue;
        if (stopped()) return fail(ErrorCode::kCancelled, "stopped before all experts were chosen.");
        dropped[e] = 1;
        ++found.tried;
        if (const double here = cost(dropped, cheapest); here < cheapest) cheapest = here, next = e;
        dropped[e] = 0;
      }
      dropped[next] = 1;
      found.loss = cheapest;
    }
    best = dropped;
  }
  for (size_t e = 0; e < experts_; ++e)
    if (best[e]) found.dropped.push_back(ExpertId(e));
  return found;
}

}  // namespace switchyard

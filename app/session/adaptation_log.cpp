#include "app/session/adaptation_log.h"

#include <algorithm>

#include <fmt/format.h>

namespace switchyard {

int largest_norm(const std::vector<double>& norms) {
  return norms.empty() ? -1 : int(std::max_element(norms.begin(), norms.end()) - norms.begin());
}

TableData adaptation_table(const AdaptationState& state, const ModelPlan& plan) {
  TableData table;
  table.columns = {{"step", "in its sequence", 0},
                   {"sequence", "", 0},
                   {"branch", "", 0},
                   {"token", "first routed under it", 0},
                   {"context", "tokens it worked on", 0},
                   {"loss before", "nats per token", 6},
                   {"loss after", "nats per token", 6},
                   {"change", "nats per token", 6},
                   {"rerouted", "% of decisions", 2},
                   {"path distance", "experts of a token's path", 3},
                   {"largest norm", "", 4},
                   {"in layer", "", 0},
                   {"edits", "", 0},
                   {"seconds", "", 2}};
  for (const AdaptationEntry& entry : state.log) {
    const int row = largest_norm(entry.norms);
    table.cells.insert(table.cells.end(),
                       {int64_t(entry.number), int64_t(entry.sequence), int64_t(entry.branch), int64_t(entry.token), int64_t(entry.context),
                        entry.loss_before, entry.loss_after, entry.loss_after - entry.loss_before, 100 * entry.rerouted, entry.path_distance,
                        row >= 0 ? entry.norms[size_t(row)] : 0.0, row >= 0 ? int64_t(plan.moe_layers[size_t(row)]) : int64_t(-1),
                        int64_t(entry.edits), entry.seconds});
  }
  return table;
}

std::string adaptation_status(const AdaptationState& state, uint32_t sequence) {
  using Phase = AdaptationState::Phase;
  int taken = 0;
  for (const AdaptationEntry& entry : state.log)
    if (entry.sequence == sequence) taken = entry.number;
  const std::string steps = fmt::format("{} of {} steps", taken, state.plan.max_steps);
  switch (state.phase) {
    case Phase::kFrozen: return "frozen after " + steps;
    case Phase::kReverted: return "reverted; " + steps + " were taken";
    case Phase::kFailed: return "ended: " + state.reason;
    case Phase::kActive: break;
  }
  if (state.stepping)
    return fmt::format("step {} of {}: iteration {} of {}", taken + 1, state.plan.max_steps, state.iterations.size() + 1, state.plan.options.steps);
  if (state.spent) return steps + ": the budget is spent";
  return steps + fmt::format(", one every {} tokens", state.plan.every);
}

}  // namespace switchyard

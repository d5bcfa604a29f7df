// How an EPLB plan ages (specs/analyses.md A12): planned from the loads of one window of a recording, scored on those of
// the next. Pure; any thread.
#pragma once

#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/placement/eplb.h"

namespace switchyard {

// Balancedness, mean / max of the GPU loads, of each window but the first; [W - 1, L] each.
struct EplbStaleness {
  int windows = 0, layers = 0;
  std::vector<double> previous;    // under the plan of the window before: what a server gets that plans once a window
  std::vector<double> own;         // under the plan of the window itself: what planning without delay would give
  std::vector<double> whole;       // under one plan of all windows together
  std::vector<double> contiguous;  // without copies, expert after expert; empty where D does not divide E

  // Means of one of them: of each window over layers, of each layer over windows.
  std::vector<double> by_window(std::span<const double> of) const;
  std::vector<double> by_layer(std::span<const double> of) const;
};

// windows: [W, L, E], two or more. Errors of plan_eplb(); kCancelled.
Result<EplbStaleness> eplb_staleness(std::span<const float> windows, int layers, int experts, const EplbShape& shape,
                                     Task* task = nullptr);

}  // namespace switchyard

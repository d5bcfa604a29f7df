// EPLB: copies of loaded experts and their packing on GPUs, as DeepSeek's balancer does it (specs/analyses.md A12),
// with every sort stable and every choice among equals the first.
// Pure; called by the command line and views, on any thread.
#pragma once

#include <span>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

struct EplbShape {
  int replicas = 0;  // R: physical experts of a layer
  int groups = 1;    // G: expert groups that should stay on one node
  int nodes = 1;     // N
  int gpus = 1;      // D, all nodes together
};

struct EplbPlan {
  EplbShape shape;
  int layers = 0, experts = 0;
  bool hierarchical = false;             // false: global, N does not divide G
  std::vector<int> physical_to_logical;  // [L, R]; slot s is on GPU s * D / R
  std::vector<int> copy;                 // [L, R]: which copy of its expert a slot holds, from 0
  std::vector<int> logical_count;        // [L, E]: copies of each expert

  // Logical to physical: the slots of an expert, by copy.
  std::vector<int> slots_of(int layer, int expert) const;
};

// loads: [L, E], finite and not negative (else kMalformed). Loads, load / copies and bin sums are IEEE float32, as in
// the original. kUsage where the numbers cannot fit together: R < E, D does not divide R, N does not divide D, or N
// divides G and G does not divide E.
Result<EplbPlan> plan_eplb(std::span<const float> loads, int layers, int experts, const EplbShape& shape);

// n items on `packs` packs of equally many, heaviest first, each to the lightest pack that has room; one item a pack:
// item i on pack i, unsorted. packs divides n. Gives the pack of each item.
std::vector<int> balanced_packing(std::span<const float> weights, int packs);

// Load of each GPU when a layer with `loads` [E] runs under the plan, every copy taking an equal share. The loads may
// be others than those that the plan was made from: how stale it has become.
std::vector<double> gpu_loads(const EplbPlan& plan, int layer, std::span<const float> loads);
// The same without copies: gpu_of [E].
std::vector<double> gpu_loads(std::span<const int> gpu_of, int gpus, std::span<const float> loads);
// mean / max; 1 for no load at all.
double balancedness(std::span<const double> gpu_loads);

}  // namespace switchyard

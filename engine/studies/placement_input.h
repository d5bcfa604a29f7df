// What placements are made from: loads and hops, counted in a trace or read from files.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/placement/affinity_placement.h"
#include "engine/studies/study.h"

namespace switchyard {

struct PlacementInput {
  int layers = 0, experts = 0;
  std::vector<float> loads;       // [L, E]; empty: not given
  std::optional<HopCounts> hops;  // nullopt: not given
  std::vector<uint64_t> homes;    // [L, G, E]; empty: no trace, or one that does not tell first choices
  std::vector<float> windows;     // [W, L, E] loads of whole windows, where the option "window" asks for them
  const char* window_unit = "tokens";
  std::vector<int> model_layers;  // names of the layers in the document

  std::span<const float> loads_of(int layer) const {
    return std::span(loads).subspan(size_t(layer) * size_t(experts), size_t(experts));
  }
};

// From the trace of the run, or from the files that its options "loads" and "transitions" name. Of a trace of counts
// only the loads alone; no hops of first choices where nothing tells the order of slots.
Result<PlacementInput> placement_input(StudyRun& run, const char* method);

}  // namespace switchyard

// See placement_document.h.
#include "engine/studies/placement_document.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "engine/placement/affinity_placement.h"

namespace switchyard {

Result<ExpertPlaces> read_placement(const JsonView& document, int layers, int experts, int gpus) {
  const auto misfit = [&](std::string what) {
    return fail(ErrorCode::kUsage, std::move(what), document.document(),
                "Make it for this trace: switchyard place --trace.");
  };
  SY_TRY(const int64_t made_for, document.integer_or("gpus", gpus, 1, 65'535));
  if (made_for != gpus) return misfit(fmt::format("is for {} GPUs, not for {}.", made_for, gpus));
  const bool copies = document.has("physical_to_logical");
  SY_TRY(const auto rows, document.array(copies ? "physical_to_logical" : "placement"));
  if (int(rows.size()) != layers)
    return misfit(fmt::format("places {} layers, the trace has {}.", rows.size(), layers));
  std::vector<int> values;
  size_t width = copies ? 0 : size_t(experts);
  for (const JsonView& row : rows) {
    SY_TRY(const auto cells, row.as_array());
    if (width == 0) width = cells.size();
    if (cells.empty() || cells.size() != width)
      return row.fail(fmt::format("has {} entries, needs {}.", cells.size(), width));
    for (const JsonView& cell : cells) {
      SY_TRY(const int64_t value, cell.as_integer(0, (copies ? experts : gpus) - 1));
      values.push_back(int(value));
    }
  }
  if (!copies) return ExpertPlaces(values, layers, experts, gpus);
  if (width % size_t(gpus) != 0)
    return misfit(fmt::format("has {} slots a layer, which {} GPUs do not divide.", width, gpus));
  EplbPlan plan;
  plan.shape = {int(width), 1, 1, gpus};
  plan.layers = layers;
  plan.experts = experts;
  plan.physical_to_logical = values;
  plan.logical_count.assign(size_t(layers) * size_t(experts), 0);
  for (size_t slot = 0; slot < values.size(); ++slot)
    plan.copy.push_back(plan.logical_count[slot / width * size_t(experts) + size_t(values[slot])]++);
  if (std::find(plan.logical_count.begin(), plan.logical_count.end(), 0) != plan.logical_count.end())
    return misfit("leaves an expert without a place.");
  return ExpertPlaces(plan);
}

Result<PlacedExperts> placed_experts(const Document& document) {
  const Json json(document);
  const JsonView view(json, "placement");
  SY_TRY(const auto rows, view.array(view.has("logical_count") ? "logical_count" : "placement"));
  if (rows.empty()) return fail(ErrorCode::kMalformed, "places no layer.", "placement");
  SY_TRY(const auto first, rows[0].as_array());
  SY_TRY(const int64_t gpus, view.integer("gpus", 1, 65'535));
  SY_TRY(ExpertPlaces places, read_placement(view, int(rows.size()), int(first.size()), int(gpus)));
  std::vector<int> layers(rows.size());
  std::iota(layers.begin(), layers.end(), 0);
  if (const auto trace = view.find("trace")) {
    SY_TRY(const auto names, trace->array("moe_layers"));
    if (names.size() == layers.size())
      for (size_t row = 0; row < layers.size(); ++row) {
        SY_TRY(const int64_t layer, names[row].as_integer(0, 65'535));
        layers[row] = int(layer);
      }
  }
  std::vector<int> contiguous;
  if (places.experts() % places.gpus() == 0) contiguous = contiguous_placement(1, places.experts(), places.gpus());
  return PlacedExperts{std::move(places), std::move(layers), std::move(contiguous)};
}

}  // namespace switchyard

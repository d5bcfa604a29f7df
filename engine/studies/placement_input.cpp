// See placement_input.h.
#include "engine/studies/placement_input.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>

#include "engine/base/json_file.h"
#include "engine/placement/hop_counter.h"

namespace switchyard {
namespace {

float as_float(const Json& value) {  // an integer goes to float32 in one rounding
  if (value.is_number_unsigned()) return float(value.get<uint64_t>());
  return value.is_number_integer() ? float(value.get<int64_t>()) : float(value.get<double>());
}

Result<void> read_loads(const std::string& file, PlacementInput& input) {
  SY_TRY(const Json json, read_json_file(file));
  SY_TRY(const auto rows, JsonView(json, file).array("loads"));
  if (rows.empty()) return fail(ErrorCode::kMalformed, "\"loads\" has no layer.", file);
  for (const JsonView& row : rows) {
    SY_TRY(const auto values, row.as_array());
    if (&row == &rows.front()) input.experts = int(std::min<size_t>(values.size(), kNoExpert));
    if (values.empty() || values.size() != size_t(input.experts))
      return row.fail(fmt::format("has {} loads, every layer needs {}.", values.size(), input.experts));
    for (const JsonView& value : values) {
      SY_CHECK(value.as_number(0, std::numeric_limits<float>::max()));
      input.loads.push_back(as_float(value.json()));
    }
  }
  input.layers = int(rows.size());
  return {};
}

Result<void> read_transitions(const std::string& file, PlacementInput& input) {
  SY_TRY(const Json json, read_json_file(file));
  const JsonView view(json, file);
  SY_TRY(const int64_t layers, view.integer("layers", 1, 65'535));
  SY_TRY(const int64_t experts, view.integer("experts", 1, 65'535));
  SY_TRY(const auto matrices, view.array("transitions"));
  if (int64_t(matrices.size()) != layers - 1)
    return fail(ErrorCode::kMalformed,
                fmt::format("has {} matrices, {} layers need {}.", matrices.size(), layers, layers - 1),
                file + ": /transitions");
  HopCounts hops{int(layers), int(experts)};
  for (const JsonView& matrix : matrices) {
    SY_TRY(const auto rows, matrix.as_array());
    if (int64_t(rows.size()) != experts)
      return matrix.fail(fmt::format("has {} rows, needs {}.", rows.size(), experts));
    for (const JsonView& row : rows) {
      SY_TRY(const auto counts, row.as_array());
      if (int64_t(counts.size()) != experts)
        return row.fail(fmt::format("has {} counts, needs {}.", counts.size(), experts));
      for (const JsonView& count : counts) {
        SY_TRY(const int64_t value, count.as_integer(0, int64_t{1} << 53));
        hops.transitions.push_back(uint64_t(value));
      }
    }
  }
  input.layers = int(layers);
  input.experts = int(experts);
  input.hops = std::move(hops);
  return {};
}

Result<PlacementInput> read_files(const StudyOptions& options, std::string_view method) {
  const std::string &loads = options.text("loads"), &transitions = options.text("transitions");
  const bool by_load = method == "eplb" || method == "load";
  if (by_load && !transitions.empty())
    return fail(ErrorCode::kUsage, "--transitions say nothing of loads.", {}, "Give --loads F or --trace F.");
  if (by_load && loads.empty())
    return fail(ErrorCode::kUsage, fmt::format("--method {} needs loads.", method), {}, "Give --loads F or --trace F.");
  if (method == "affinity" && transitions.empty())
    return fail(ErrorCode::kUsage, "--method affinity needs transitions.", {}, "Give --transitions F or --trace F.");
  if (loads.empty() && transitions.empty())
    return fail(ErrorCode::kUsage, "--method contiguous needs something to place.", {},
                "Give --loads F, --transitions F or --trace F.");
  PlacementInput input;
  if (!loads.empty()) SY_CHECK(read_loads(loads, input));
  if (!transitions.empty()) {
    const int layers = input.layers, experts = input.experts;
    SY_CHECK(read_transitions(transitions, input));
    if (!loads.empty() && (layers != input.layers || experts != input.experts))
      return fail(ErrorCode::kMalformed,
                  fmt::format("has {} layers of {} experts, {} has {} of {}.", layers, experts, transitions,
                              input.layers, input.experts),
                  loads);
  }
  input.model_layers.resize(size_t(input.layers));
  std::iota(input.model_layers.begin(), input.model_layers.end(), 0);
  return input;
}

Result<PlacementInput> count_trace(StudyRun& run, std::string_view method) {
  const TraceShape& shape = run.shape();
  PlacementInput input;
  input.layers = shape.rows;
  input.experts = shape.experts;
  input.model_layers = shape.layers;
  if (shape.counts_only) {
    SY_TRY(const TraceCounts counts, run.input.walk->trace(0).counts());
    for (const uint64_t count : counts.count) input.loads.push_back(float(count));
    return input;
  }
  const bool all_pairs = run.options.text("pairs") == "topk";
  if (method == "affinity" && !all_pairs && !shape.ranked)
    return fail(ErrorCode::kUsage, "first choices are unknown: the trace's source did not tell the order of slots.",
                run.trace_path(), "Count all pairs with --pairs topk.");
  HopCounter counter(shape.rows, shape.experts, std::max(1, run.options.number<int>("gpus")));
  SY_CHECK(run.walk({}, [&](const RoutingSlab& slab) { return counter.feed(slab); }));
  input.loads = counter.loads();
  if (shape.ranked || all_pairs) input.hops = counter.counts(all_pairs, false);
  if (shape.ranked) input.homes = counter.homes();
  return input;
}

}  // namespace

Result<PlacementInput> placement_input(StudyRun& run, const char* method) {
  return run.input.walk != nullptr ? count_trace(run, method) : read_files(run.options, method);
}

}  // namespace switchyard

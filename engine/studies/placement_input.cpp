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
  if (method == "eplb" && options.number<uint64_t>("window") > 0)
    return fail(ErrorCode::kUsage, "--window needs a trace: loads of a file have no windows.", {}, "Give --trace F.");
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

// Loads of windows of so many tokens that count, one after the other; the rest at the end is no window.
class WindowLoads {
 public:
  WindowLoads(uint64_t tokens, int layers, int experts) : tokens_(tokens), width_(size_t(layers) * size_t(experts)), experts_(size_t(experts)) {}

  void feed(const RoutingSlab& slab) {
    for (int t = 0; t < slab.tokens; ++t) {
      if (!slab.mask.empty() && slab.mask[size_t(t)] == 0) continue;
      if (filled_ == 0) loads_.resize(loads_.size() + width_);
      float* window = loads_.data() + loads_.size() - width_;
      for (int l = 0; l < slab.rows; ++l)
        for (const ExpertId expert : slab.token(l, t))
          if (expert != kNoExpert) window[size_t(l) * experts_ + expert] += 1;
      filled_ = (filled_ + 1) % tokens_;
    }
  }
  std::vector<float> take() {
    if (filled_ != 0) loads_.resize(loads_.size() - width_);
    return std::move(loads_);
  }

 private:
  uint64_t tokens_, filled_ = 0;
  size_t width_, experts_;
  std::vector<float> loads_;
};

// The same of forward passes, from their counts.
std::vector<float> pass_windows(const TraceCounts& counts, uint64_t passes, size_t width) {
  std::vector<float> loads(counts.passes / passes * width);
  for (size_t at = 0; at < loads.size() * passes; ++at)
    loads[at / (passes * width) * width + at % width] += float(counts.pass_count[at]);
  return loads;
}

constexpr uint64_t kMostWindowBytes = uint64_t(1) << 30;

// window: tokens, or passes of a trace of counts; `length` of the same the trace holds.
Result<void> check_window(uint64_t window, uint64_t length, const char* unit, size_t width, const std::string& path) {
  if (length / window < 2)
    return fail(ErrorCode::kUsage, fmt::format("holds {} {}; plans are scored on the next window, so two windows of {} are needed.", length, unit, window), path,
                fmt::format("Give --window {} or less.", std::max<uint64_t>(length / 2, 1)));
  if (length / window > kMostWindowBytes / (width * sizeof(float)))
    return fail(ErrorCode::kUsage, fmt::format("{} windows of {} {} would take more than 1 GiB.", length / window, window, unit), path,
                "Give longer ones with --window.");
  return {};
}

Result<PlacementInput> count_trace(StudyRun& run, std::string_view method) {
  const TraceShape& shape = run.shape();
  PlacementInput input;
  input.layers = shape.rows;
  input.experts = shape.experts;
  input.model_layers = shape.layers;
  const uint64_t window = method == "eplb" ? run.options.number<uint64_t>("window") : 0;
  const size_t width = size_t(shape.rows) * size_t(shape.experts);
  if (shape.counts_only) {
    SY_TRY(const TraceCounts counts, run.input.walk->trace(0).counts());
    for (const uint64_t count : counts.count) input.loads.push_back(float(count));
    if (window == 0) return input;
    SY_CHECK(check_window(window, counts.passes, "forward passes told apart", width, run.trace_path()));
    input.windows = pass_windows(counts, window, width);
    input.window_unit = "passes";
    return input;
  }
  if (window > 0) SY_CHECK(check_window(window, shape.tokens, "tokens", width, run.trace_path()));
  const bool all_pairs = run.options.text("pairs") == "topk";
  if (method == "affinity" && !all_pairs && !shape.ranked)
    return fail(ErrorCode::kUsage, "first choices are unknown: the trace's source did not tell the order of slots.",
                run.trace_path(), "Count all pairs with --pairs topk.");
  HopCounter counter(shape.rows, shape.experts, std::max(1, run.options.number<int>("gpus")));
  WindowLoads windows(window, shape.rows, shape.experts);
  SY_CHECK(run.walk({}, [&](const RoutingSlab& slab) {
    if (window > 0) windows.feed(slab);
    return counter.feed(slab);
  }));
  input.loads = counter.loads();
  input.windows = windows.take();
  if (shape.ranked || all_pairs) input.hops = counter.counts(all_pairs, false);
  if (shape.ranked) input.homes = counter.homes();
  return input;
}

}  // namespace

Result<PlacementInput> placement_input(StudyRun& run, const char* method) {
  return run.input.walk != nullptr ? count_trace(run, method) : read_files(run.options, method);
}

}  // namespace switchyard

// switchyard place: which GPU holds which expert (specs/cli-json.md, place; specs/analyses.md A11, A12).
#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "app/cli/json_file.h"
#include "app/cli/placement_commands.h"
#include "app/cli/table_output.h"
#include "app/cli/trace_input.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/eplb.h"
#include "engine/placement/hop_counter.h"

namespace switchyard {
namespace {

struct PlaceOptions {
  std::string method, loads, transitions, trace, pairs = "top1";
  EplbShape eplb;
  PlacementOptions placement;
  bool coherent = false;
  TableOptions tables;
};

// What the placement is made from: loads, hops, or both from a trace.
struct PlaceInput {
  int layers = 0, experts = 0;
  std::vector<float> loads;  // [L, E]; empty: not given
  std::optional<HopCounts> hops;
  std::vector<uint64_t> homes;    // [L, G, E]; empty: no trace
  std::vector<int> model_layers;  // names of the layers in the output
  Document trace;
};

float as_float(const Json& value) {  // an integer goes to float32 in one rounding
  if (value.is_number_unsigned()) return float(value.get<uint64_t>());
  return value.is_number_integer() ? float(value.get<int64_t>()) : float(value.get<double>());
}

Result<void> read_loads(const std::string& file, PlaceInput& input) {
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

Result<void> read_transitions(const std::string& file, PlaceInput& input) {
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

Result<void> count_trace(Cli& cli, const PlaceOptions& options, Task& task, PlaceInput& input) {
  SY_TRY(TraceInput trace, open_trace(cli, options.trace, &task));
  const TraceShape& shape = trace.walk.shape();
  if (options.pairs == "top1" && options.method == "affinity" && !shape.ranked)
    return fail(ErrorCode::kUsage, "first choices are unknown: the trace's source did not tell the order of slots.",
                options.trace, "Count all pairs with --pairs topk.");
  HopCounter counter(shape.rows, shape.experts, std::max(1, options.placement.gpus));
  SY_CHECK(trace.walk.run([&](const RoutingSlab& slab) { return counter.feed(slab); }, &task));
  input = {shape.rows,      shape.experts, counter.loads(),          counter.counts(options.pairs == "topk", false),
           counter.homes(), shape.layers,  std::move(trace.document)};
  return {};
}

Result<PlaceInput> read_input(Cli& cli, const PlaceOptions& options, Task& task) {
  PlaceInput input;
  const bool by_load = options.method == "eplb" || options.method == "load";
  if (!options.trace.empty()) {
    if (!options.loads.empty() || !options.transitions.empty())
      return fail(ErrorCode::kUsage, "--trace gives loads and transitions; leave the files out.");
    SY_CHECK(count_trace(cli, options, task, input));
    return input;
  }
  if (by_load && !options.transitions.empty())
    return fail(ErrorCode::kUsage, "--transitions say nothing of loads.", {}, "Give --loads F or --trace F.");
  if (by_load && options.loads.empty())
    return fail(ErrorCode::kUsage, fmt::format("--method {} needs loads.", options.method), {},
                "Give --loads F or --trace F.");
  if (options.method == "affinity" && options.transitions.empty())
    return fail(ErrorCode::kUsage, "--method affinity needs transitions.", {}, "Give --transitions F or --trace F.");
  if (options.loads.empty() && options.transitions.empty())
    return fail(ErrorCode::kUsage, "--method contiguous needs something to place.", {},
                "Give --loads F, --transitions F or --trace F.");
  if (!options.loads.empty()) SY_CHECK(read_loads(options.loads, input));
  if (!options.transitions.empty()) {
    const int layers = input.layers, experts = input.experts;
    SY_CHECK(read_transitions(options.transitions, input));
    if (!options.loads.empty() && (layers != input.layers || experts != input.experts))
      return fail(ErrorCode::kMalformed,
                  fmt::format("has {} layers of {} experts, {} has {} of {}.", layers, experts, options.transitions,
                              input.layers, input.experts),
                  options.loads);
  }
  input.model_layers.resize(size_t(input.layers));
  std::iota(input.model_layers.begin(), input.model_layers.end(), 0);
  return input;
}

template <class T>
Document rows_of(const std::vector<T>& values, int width) {
  Document rows = Document::array();
  for (size_t at = 0; at < values.size(); at += size_t(width))
    rows.push_back(std::vector<T>(values.begin() + std::ptrdiff_t(at), values.begin() + std::ptrdiff_t(at) + width));
  return rows;
}

std::span<const float> loads_of(const PlaceInput& input, int layer) {
  return std::span(input.loads).subspan(size_t(layer) * size_t(input.experts), size_t(input.experts));
}

Result<Document> place_eplb(const PlaceOptions& options, const PlaceInput& input) {
  EplbShape shape = options.eplb;
  shape.gpus = options.placement.gpus;
  if (shape.replicas == 0) shape.replicas = input.experts;
  SY_TRY(const EplbPlan plan, plan_eplb(input.loads, input.layers, input.experts, shape));
  Document out = {{"policy", plan.hierarchical ? "hierarchical" : "global"},
                  {"gpus", shape.gpus},
                  {"physical_to_logical", rows_of(plan.physical_to_logical, shape.replicas)},
                  {"logical_count", rows_of(plan.logical_count, input.experts)}};
  out["layers"] = Document::array();
  for (int l = 0; l < input.layers; ++l) {
    const auto loads = gpu_loads(plan, l, loads_of(input, l));
    Document layer = {
        {"layer", input.model_layers[size_t(l)]}, {"gpu_load", loads}, {"balancedness", balancedness(loads)}};
    if (input.experts % shape.gpus == 0) {
      const auto contiguous = contiguous_placement(1, input.experts, shape.gpus);
      layer["contiguous_balancedness"] = balancedness(gpu_loads(contiguous, shape.gpus, loads_of(input, l)));
    }
    out["layers"].push_back(std::move(layer));
  }
  return out;
}

// What every placement of one copy each reports: cut, moves and loads beside those of contiguous experts.
void describe(const PlaceInput& input, const std::vector<int>& gpu, int gpus, Document& out) {
  const auto contiguous = contiguous_placement(input.layers, input.experts, gpus);
  Document layers = Document::array();
  if (!input.loads.empty()) {
    for (int l = 0; l < input.layers; ++l) {
      const auto row = std::span(gpu).subspan(size_t(l) * size_t(input.experts), size_t(input.experts));
      const auto loads = gpu_loads(row, gpus, loads_of(input, l));
      layers.push_back(
          {{"layer", input.model_layers[size_t(l)]},
           {"gpu_load", loads},
           {"balancedness", balancedness(loads)},
           {"contiguous_balancedness",
            balancedness(gpu_loads(std::span(contiguous).first(size_t(input.experts)), gpus, loads_of(input, l)))}});
    }
    out["layers"] = std::move(layers);
  }
  if (!input.hops) return;
  const HopCounts& hops = *input.hops;
  const auto here = cuts(hops, gpu), there = cuts(hops, contiguous);
  const auto sum = [](const auto& values) { return std::accumulate(values.begin(), values.end(), uint64_t{0}); };
  out["cut"] = sum(here);
  out["total"] = sum(hops.transitions);
  out["contiguous_cut"] = sum(there);
  out["random_cut"] = mean_random_cut(hops, gpus);
  Document transitions = Document::array();
  for (size_t l = 0; l < here.size(); ++l)
    transitions.push_back({{"from", input.model_layers[l]},
                           {"to", input.model_layers[l + 1]},
                           {"cut", here[l]},
                           {"contiguous_cut", there[l]}});
  out["transitions"] = std::move(transitions);
  if (input.homes.empty()) return;
  HopCounts first{1, input.experts};
  first.home.assign(input.homes.begin(), input.homes.begin() + std::ptrdiff_t(gpus) * input.experts);
  const auto row = [&](const std::vector<int>& placement) { return std::span(placement).first(size_t(input.experts)); };
  out["moves"] = {{"vanilla", vanilla_moves(input.homes, input.layers, input.experts, gpus, gpu)},
                  {"vanilla_contiguous", vanilla_moves(input.homes, input.layers, input.experts, gpus, contiguous)},
                  {"from_home", cut(first, row(gpu))},
                  {"from_home_contiguous", cut(first, row(contiguous))}};
}

Result<Document> place_affinity(Cli& cli, const PlaceOptions& options, const PlaceInput& input, Task& task) {
  HopCounts hops = *input.hops;
  for (const float load : input.loads) hops.loads.push_back(load);
  if (options.placement.load_weight != 0 && hops.loads.empty())
    return fail(ErrorCode::kUsage, "--load-weight needs loads.", {}, "Give --loads F, or --trace F.");
  if (options.coherent) {
    if (input.homes.empty())
      return fail(ErrorCode::kUsage, "--coherent needs to know where tokens live.", {}, "Give --trace F.");
    hops.home.assign(input.homes.begin(), input.homes.begin() + std::ptrdiff_t(options.placement.gpus) * input.experts);
  }
  SY_TRY(const TwoLevelPlacement two, place_in_two_levels(hops, options.eplb.nodes, options.placement, &task));
  const Placement& placement = two.placement;
  Document out = {{"gpus", options.placement.gpus}, {"placement", rows_of(placement.gpu, input.experts)}};
  describe(input, placement.gpu, options.placement.gpus, out);
  out["optimal"] = placement.optimal();
  out["proof"] = name(placement.proof);
  out["objective"] = placement.objective;
  if (options.eplb.nodes > 1)
    out["nodes"] = {{"nodes", options.eplb.nodes},
                    {"cut", two.node_cut},
                    {"optimal", two.nodes_proof != PlacementProof::kNone},
                    {"proof", name(two.nodes_proof)},
                    {"within_optimal", two.within_proof != PlacementProof::kNone},
                    {"within_proof", name(two.within_proof)}};
  if (!placement.optimal() && options.eplb.nodes == 1)
    cli.output.info(fmt::format("Annealed from seed {}: good, not proven to be the least.", options.placement.seed));
  return out;
}

Result<Document> place_plainly(const PlaceOptions& options, const PlaceInput& input) {
  const int gpus = options.placement.gpus;
  if (gpus < 1 || input.experts % gpus != 0)
    return fail(ErrorCode::kUsage, fmt::format("{} experts do not divide evenly over {} GPUs.", input.experts, gpus),
                {}, "Give a divisor of the number of experts as --gpus.");
  const auto gpu = options.method == "load" ? load_placement(input.loads, input.layers, input.experts, gpus)
                                            : contiguous_placement(input.layers, input.experts, gpus);
  Document out = {{"gpus", gpus}, {"placement", rows_of(gpu, input.experts)}};
  describe(input, gpu, gpus, out);
  return out;
}

Result<int> place(Cli& cli, const PlaceOptions& options) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  SY_TRY(const PlaceInput input, read_input(cli, options, task));
  Document out = {{"method", options.method}, {"schema", kSchema}};
  if (!input.trace.is_null()) out["trace"] = input.trace;
  auto placed = options.method == "eplb"       ? place_eplb(options, input)
                : options.method == "affinity" ? place_affinity(cli, options, input, task)
                                               : place_plainly(options, input);
  if (!placed) return tl::unexpected<Error>(std::move(placed).error());
  out.update(*placed);
  show_result(cli, options.tables, "place " + options.method, std::move(out));
  return 0;
}

}  // namespace

void add_place(CLI::App& app, Cli& cli) {
  auto* command = add_command(
      app, "place", "Which GPU holds which expert: copies of the loaded ones, or few hops between GPUs.",
      "  switchyard place --method eplb --trace run.moetrace.h5 --replicas 72 --groups 8 --nodes 2 --gpus 8\n"
      "  switchyard place --method affinity --trace run.moetrace.h5 --gpus 4 --json -o placement.json\n"
      "  switchyard place --method affinity --transitions T.json --gpus 8 --nodes 2\n"
      "  switchyard place --method load --loads LOADS.json --gpus 8");
  const auto options = std::make_shared<PlaceOptions>();
  PlaceOptions& o = *options;
  command
      ->add_option("--method", o.method,
                   "eplb (copies), affinity (few hops), load (even loads, no copies) or contiguous")
      ->required()
      ->check(CLI::IsMember({"eplb", "affinity", "contiguous", "load"}));
  command->add_option("--loads", o.loads, "{\"loads\": [[a number per expert] per layer]}")
      ->type_name("FILE");
  command
      ->add_option("--transitions", o.transitions,
                   "{\"layers\", \"experts\", \"transitions\": [L - 1 matrices]}")
      ->type_name("FILE");
  command->add_option("--trace", o.trace, "A *.moetrace.h5 file: loads and hops are counted in it")->type_name("FILE");
  command->add_option("--gpus", o.placement.gpus, "GPUs, all nodes together")->required()->check(CLI::Range(1, 65'535));
  command->add_option("--nodes", o.eplb.nodes, "Nodes (1); affinity: nodes first, then the GPUs of each")
      ->check(CLI::Range(1, 65'535));
  command->add_option("--groups", o.eplb.groups, "eplb: expert groups that stay on one node (1)")
      ->check(CLI::Range(1, 65'535));
  command->add_option("--replicas", o.eplb.replicas, "eplb: physical experts a layer (no copies)")
      ->check(CLI::Range(1, 1'000'000));
  command->add_option("--pairs", o.pairs, "affinity with --trace: hops of first choices (top1) or of all pairs (topk)")
      ->check(CLI::IsMember({"top1", "topk"}));
  command->add_flag("--coherent", o.coherent,
                    "affinity with --trace: count the hop from a token's home (sequence modulo GPUs) too");
  command
      ->add_option("--load-weight", o.placement.load_weight,
                   "affinity: hops that one token more on a layer's fullest GPU is worth (0)")
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--seed", o.placement.seed, "affinity: of the annealing (0)");
  command->add_option("--sweeps", o.placement.sweeps, "affinity: length of the annealing (by size)")
      ->check(CLI::Range(1, 10'000'000));
  command->add_option("--restarts", o.placement.restarts, "affinity: independent annealings (2)")
      ->check(CLI::Range(1, 10'000));
  command->add_option("--threads", o.placement.threads, "Threads (one per core)")->check(CLI::Range(0, 256));
  o.tables.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return place(cli, *options); }; });
}

}  // namespace switchyard

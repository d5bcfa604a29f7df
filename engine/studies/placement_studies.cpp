// Which GPU holds which expert (specs/analyses.md A11, A12).
#include <algorithm>
#include <numeric>

#include "engine/placement/eplb.h"
#include "engine/placement/eplb_staleness.h"
#include "engine/studies/placement_input.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

template <class T>
Document rows_of(const std::vector<T>& values, int width) {
  Document rows = Document::array();
  for (size_t at = 0; at < values.size(); at += size_t(width))
    rows.push_back(std::vector<T>(values.begin() + std::ptrdiff_t(at), values.begin() + std::ptrdiff_t(at) + width));
  return rows;
}

// Each way of planning: its mean, and its means of layers and of windows.
Document staleness_json(const EplbStaleness& of, const std::vector<int>& model_layers) {
  Document out = Document::array();
  const auto add = [&](const char* policy, const std::vector<double>& values) {
    if (values.empty()) return;
    Document one = {{"policy", policy}, {"balancedness", std::accumulate(values.begin(), values.end(), 0.0) / double(values.size())}};
    const auto layers = of.by_layer(values), windows = of.by_window(values);
    for (size_t l = 0; l < layers.size(); ++l)
      one["layers"].push_back({{"layer", model_layers[l]}, {"balancedness", layers[l]}});
    for (size_t w = 0; w < windows.size(); ++w)
      one["windows"].push_back({{"position", w + 1}, {"balancedness", windows[w]}});
    out.push_back(std::move(one));
  };
  add("previous", of.previous);
  add("own", of.own);
  add("whole", of.whole);
  add("contiguous", of.contiguous);
  return out;
}

Result<Document> run_eplb(StudyRun& run) {
  SY_TRY(const PlacementInput input, placement_input(run, "eplb"));
  EplbShape shape{run.options.number<int>("replicas"), run.options.number<int>("groups"),
                  run.options.number<int>("nodes"), run.options.number<int>("gpus")};
  if (shape.replicas == 0) shape.replicas = input.experts;
  SY_TRY(const EplbPlan plan, plan_eplb(input.loads, input.layers, input.experts, shape));
  Document out = {{"policy", plan.hierarchical ? "hierarchical" : "global"},
                  {"gpus", shape.gpus},
                  {"physical_to_logical", rows_of(plan.physical_to_logical, shape.replicas)},
                  {"logical_count", rows_of(plan.logical_count, input.experts)}};
  out["layers"] = Document::array();
  for (int l = 0; l < input.layers; ++l) {
    const auto loads = gpu_loads(plan, l, input.loads_of(l));
    Document layer = {
        {"layer", input.model_layers[size_t(l)]}, {"gpu_load", loads}, {"balancedness", balancedness(loads)}};
    if (input.experts % shape.gpus == 0) {
      const auto contiguous = contiguous_placement(1, input.experts, shape.gpus);
      layer["contiguous_balancedness"] = balancedness(gpu_loads(contiguous, shape.gpus, input.loads_of(l)));
    }
    out["layers"].push_back(std::move(layer));
  }
  if (input.windows.empty()) return out;
  SY_TRY(const EplbStaleness aged, eplb_staleness(input.windows, input.layers, input.experts, shape, &run.task));
  out["window"] = {{"length", run.options.number<uint64_t>("window")}, {"unit", input.window_unit}, {"windows", aged.windows}};
  out["staleness"] = staleness_json(aged, input.model_layers);
  return out;
}

// What every placement of one copy each reports: cut, moves and loads beside those of contiguous experts.
void describe(const PlacementInput& input, const std::vector<int>& gpu, int gpus, Document& out) {
  const auto contiguous = contiguous_placement(input.layers, input.experts, gpus);
  Document layers = Document::array();
  if (!input.loads.empty()) {
    for (int l = 0; l < input.layers; ++l) {
      const auto row = std::span(gpu).subspan(size_t(l) * size_t(input.experts), size_t(input.experts));
      const auto loads = gpu_loads(row, gpus, input.loads_of(l));
      layers.push_back(
          {{"layer", input.model_layers[size_t(l)]},
           {"gpu_load", loads},
           {"balancedness", balancedness(loads)},
           {"contiguous_balancedness",
            balancedness(gpu_loads(std::span(contiguous).first(size_t(input.experts)), gpus, input.loads_of(l)))}});
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

PlacementOptions solver_of(const StudyRun& run) {
  PlacementOptions out;
  out.gpus = run.options.number<int>("gpus");
  out.load_weight = run.options.number<double>("load-weight");
  out.seed = run.options.number<uint64_t>("seed");
  out.sweeps = run.options.number<int>("sweeps");
  out.restarts = run.options.number<int>("restarts");
  out.threads = run.input.threads;
  return out;
}

Result<Document> run_affinity(StudyRun& run) {
  SY_TRY(const PlacementInput input, placement_input(run, "affinity"));
  const PlacementOptions solver = solver_of(run);
  const int nodes = run.options.number<int>("nodes");
  HopCounts hops = *input.hops;
  hops.loads.assign(input.loads.begin(), input.loads.end());
  if (solver.load_weight != 0 && hops.loads.empty())
    return fail(ErrorCode::kUsage, "--load-weight needs loads.", {}, "Give --loads F, or --trace F.");
  if (run.options.on("coherent")) {
    if (input.homes.empty())
      return fail(ErrorCode::kUsage, "--coherent needs to know where tokens live, and their first choices.", {},
                  "Give --trace F, of a source that told the order of slots.");
    hops.home.assign(input.homes.begin(), input.homes.begin() + std::ptrdiff_t(solver.gpus) * input.experts);
  }
  SY_TRY(const TwoLevelPlacement two, place_in_two_levels(hops, nodes, solver, &run.task));
  const Placement& placement = two.placement;
  Document out = {{"gpus", solver.gpus}, {"placement", rows_of(placement.gpu, input.experts)}};
  describe(input, placement.gpu, solver.gpus, out);
  out["optimal"] = placement.optimal();
  out["proof"] = name(placement.proof);
  out["objective"] = placement.objective;
  if (nodes > 1)
    out["nodes"] = {{"nodes", nodes},
                    {"cut", two.node_cut},
                    {"optimal", two.nodes_proof != PlacementProof::kNone},
                    {"proof", name(two.nodes_proof)},
                    {"within_optimal", two.within_proof != PlacementProof::kNone},
                    {"within_proof", name(two.within_proof)}};
  if (!placement.optimal() && nodes == 1)
    run.notes.push_back({fmt::format("Annealed from seed {}: good, not proven to be the least.", solver.seed)});
  return out;
}

// by_load: heaviest first to the lightest GPU; else contiguous.
Result<Document> place_plainly(StudyRun& run, const char* method, bool by_load) {
  SY_TRY(const PlacementInput input, placement_input(run, method));
  const int gpus = run.options.number<int>("gpus");
  if (input.experts % gpus != 0)
    return fail(ErrorCode::kUsage, fmt::format("{} experts do not divide evenly over {} GPUs.", input.experts, gpus),
                {}, "Give a divisor of the number of experts as --gpus.");
  const auto gpu = by_load ? load_placement(input.loads, input.layers, input.experts, gpus)
                           : contiguous_placement(input.layers, input.experts, gpus);
  Document out = {{"gpus", gpus}, {"placement", rows_of(gpu, input.experts)}};
  describe(input, gpu, gpus, out);
  return out;
}

Result<Document> run_load(StudyRun& run) {
  return place_plainly(run, "load", true);
}
Result<Document> run_contiguous(StudyRun& run) {
  return place_plainly(run, "contiguous", false);
}

StudyInfo row_of(const char* name, const char* section, const char* title, std::vector<StudyOption> options,
                 std::vector<const char*> examples, bool of_hops, Result<Document> (*run)(StudyRun&)) {
  StudyOption loads = file_option("loads", "{\"loads\": [[a number per expert] per layer]}");
  StudyOption transitions = file_option("transitions", "{\"layers\", \"experts\", \"transitions\": [L - 1 matrices]}");
  loads.in_place_of_trace = transitions.in_place_of_trace = true;
  std::vector<StudyOption> all = {loads, transitions, gpus_option(65'535)};
  all.insert(all.end(), options.begin(), options.end());
  return {StudyKind::kPlacement,
          name,
          section,
          title,
          std::move(all),
          std::move(examples),
          of_hops,
          of_hops,
          "experts",
          "gpu",
          nullptr,
          run};
}

}  // namespace

std::vector<StudyInfo> placement_studies() {
  const StudyOption nodes =
      whole_option("nodes", "1", "Nodes; affinity: nodes first, then the GPUs of each", 1, 65'535);
  const StudyOption pairs =
      choice_option("pairs", {"top1", "topk"}, "Hops of first choices (top1) or of all pairs (topk) of a trace");
  return {
      row_of("eplb", "A12", "Copies of the loaded experts, so that GPUs are evenly loaded",
             {nodes, whole_option("groups", "1", "Expert groups that stay on one node", 1, 65'535),
              whole_option("replicas", "", "Physical experts a layer (no copies)", 1, 1e6),
              whole_option("window", "",
                           "Score the plan of each window of so many tokens (of counts: passes) on the next", 1, 1e12)},
             {"--trace run.moetrace.h5 --replicas 72 --groups 8 --nodes 2 --gpus 8",
              "--trace run.moetrace.h5 --gpus 4 --window 1000"},
             false, run_eplb),
      row_of("affinity", "A11", "Few hops between GPUs from layer to layer",
             {nodes, pairs,
              switch_option("coherent", "Count the hop from a token's home (sequence modulo GPUs) in a trace too"),
              real_option("load-weight", "0", "Hops that one token more on a layer's fullest GPU is worth", 0, 1e9),
              seed_option("Of the annealing"), whole_option("sweeps", "", "Length of the annealing (by size)", 1, 1e7),
              whole_option("restarts", "2", "Independent annealings", 1, 10'000)},
             {"--trace run.moetrace.h5 --gpus 4 --json -o placement.json", "--transitions T.json --gpus 8 --nodes 2"},
             true, run_affinity),
      row_of("contiguous", "A11", "Expert after expert, as frameworks do: the baseline", {pairs}, {}, false,
             run_contiguous),
      row_of("load", "A12", "Even loads of the GPUs, without copies", {pairs}, {"--loads LOADS.json --gpus 8"}, false,
             run_load)};
}

}  // namespace switchyard

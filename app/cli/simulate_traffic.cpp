// switchyard simulate traffic: expert parallelism and the network under it (specs/analyses.md A13).
#include <algorithm>

#include <fmt/format.h>

#include "app/cli/json_file.h"
#include "app/cli/simulation.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/hop_counter.h"
#include "engine/placement/leaf_spine.h"
#include "engine/placement/traffic.h"

namespace switchyard {
namespace {

struct TrafficChoice {
  int gpus = 0, nodes = 1, hidden = 0, leaves = 0, spines = 0, draws = 1000;
  double dispatch_bytes = 1, combine_bytes = 2, bandwidth_gb = 0, latency_us = 0;
  uint64_t seed = 0;
  std::string placement;
};

// The placement of a file that `place` wrote, or contiguous experts.
Result<ExpertPlaces> places_of(const TrafficChoice& choice, const TraceShape& shape) {
  const auto misfit = [&](std::string what) {
    return fail(ErrorCode::kUsage, std::move(what), choice.placement,
                "Make it for this trace: switchyard place --trace.");
  };
  if (choice.placement.empty()) {
    if (shape.experts % choice.gpus != 0)
      return fail(ErrorCode::kUsage,
                  fmt::format("{} experts do not divide evenly over {} GPUs.", shape.experts, choice.gpus), "--gpus",
                  "Give a divisor of the number of experts, or --placement FILE.");
    return ExpertPlaces(contiguous_placement(shape.rows, shape.experts, choice.gpus), shape.rows, shape.experts,
                        choice.gpus);
  }
  SY_TRY(const Json json, read_json_file(choice.placement));
  const JsonView view(json, choice.placement);
  SY_TRY(const int64_t gpus, view.integer_or("gpus", choice.gpus, 1, 65'535));
  if (gpus != choice.gpus) return misfit(fmt::format("is for {} GPUs, not for {}.", gpus, choice.gpus));
  const bool copies = view.has("physical_to_logical");
  SY_TRY(const auto rows, view.array(copies ? "physical_to_logical" : "placement"));
  if (int(rows.size()) != shape.rows)
    return misfit(fmt::format("places {} layers, the trace has {}.", rows.size(), shape.rows));
  std::vector<int> values;
  size_t width = copies ? 0 : size_t(shape.experts);
  for (const JsonView& row : rows) {
    SY_TRY(const auto cells, row.as_array());
    if (width == 0) width = cells.size();
    if (cells.empty() || cells.size() != width)
      return row.fail(fmt::format("has {} entries, needs {}.", cells.size(), width));
    for (const JsonView& cell : cells) {
      SY_TRY(const int64_t value, cell.as_integer(0, (copies ? shape.experts : choice.gpus) - 1));
      values.push_back(int(value));
    }
  }
  if (!copies) return ExpertPlaces(values, shape.rows, shape.experts, choice.gpus);
  if (width % size_t(choice.gpus) != 0)
    return misfit(fmt::format("has {} slots a layer, which {} GPUs do not divide.", width, choice.gpus));
  EplbPlan plan;
  plan.shape = {int(width), 1, 1, choice.gpus};
  plan.layers = shape.rows;
  plan.experts = shape.experts;
  plan.physical_to_logical = values;
  plan.logical_count.assign(size_t(shape.rows) * size_t(shape.experts), 0);
  for (size_t slot = 0; slot < values.size(); ++slot)
    plan.copy.push_back(plan.logical_count[slot / width * size_t(shape.experts) + size_t(values[slot])]++);
  if (std::find(plan.logical_count.begin(), plan.logical_count.end(), 0) != plan.logical_count.end())
    return misfit("leaves an expert without a place.");
  return ExpertPlaces(plan);
}

Document square(std::span<const uint64_t> matrix, int n) {
  Document rows = Document::array();
  for (int i = 0; i < n; ++i) rows.push_back(list_of(matrix.subspan(size_t(i) * size_t(n), size_t(n))));
  return rows;
}

Document fabric_of(const TrafficChoice& choice, std::span<const uint64_t> tokens) {
  const double item = choice.hidden > 0 ? choice.hidden * choice.dispatch_bytes : 1.0;
  const auto flows = flows_of(tokens, choice.gpus, choice.leaves, item);
  const LinkLoads sprayed = spray(flows, choice.leaves, choice.spines),
                  cut = split_paths(flows, choice.leaves, choice.spines);
  const auto largest = ecmp_largest(flows, choice.leaves, choice.spines, choice.seed, choice.draws);
  const auto quantile = [&](double q) {
    const double at = q * double(largest.size() - 1);
    const size_t below = size_t(at);
    return largest[below] + (at - double(below)) * (largest[std::min(below + 1, largest.size() - 1)] - largest[below]);
  };
  double mean = 0;
  for (const double load : largest) mean += load / double(largest.size());
  return {{"leaves", choice.leaves},
          {"spines", choice.spines},
          {"unit", choice.hidden > 0 ? "bytes" : "tokens"},
          {"flows", flows.size()},
          {"flow_cv", flow_cv(flows)},
          {"spray_max", sprayed.largest()},
          {"split_max", cut.largest()},
          {"split_extra_flows", cut.extra_flows},
          {"whole_max", whole_paths(flows, choice.leaves, choice.spines).largest()},
          {"ecmp_mean", mean},
          {"ecmp_p50", quantile(0.5)},
          {"ecmp_p95", quantile(0.95)},
          {"ecmp_max", largest.back()},
          {"ecmp_draws", choice.draws},
          {"seed", choice.seed},
          {"up", sprayed.up}};
}

Result<int> simulate_traffic(Cli& cli, const SimulatedTrace& trace, const TrafficChoice& choice) {
  if (choice.gpus % choice.nodes != 0)
    return fail(ErrorCode::kUsage,
                fmt::format("{} GPUs do not divide evenly over {} nodes.", choice.gpus, choice.nodes), "--nodes",
                "Give a divisor of --gpus.");
  if ((choice.leaves > 0) != (choice.spines > 0))
    return fail(ErrorCode::kUsage, "a network needs both --leaves and --spines.");
  if (choice.leaves > 0 && choice.gpus % choice.leaves != 0)
    return fail(ErrorCode::kUsage,
                fmt::format("{} GPUs do not divide evenly over {} leaves.", choice.gpus, choice.leaves), "--leaves",
                "Give a divisor of --gpus.");
  Simulation simulation(cli, trace, "traffic");
  SY_CHECK(simulation.open());
  const TraceShape& shape = simulation.shape();
  SY_TRY(ExpertPlaces places, places_of(choice, shape));
  Traffic traffic(std::move(places), choice.nodes);
  std::vector<int> home;
  SY_CHECK(simulation.run({}, [&](const RoutingSlab& slab) -> Result<void> {
    home.clear();
    for (const uint32_t sequence : slab.sequence) home.push_back(home_gpu(sequence, choice.gpus));
    for (int row = 0; row < shape.rows; ++row) SY_CHECK(traffic.feed(slab, row, home));
    return {};
  }));
  const Link link{choice.bandwidth_gb * 1e9, choice.latency_us * 1e-6};
  Document& out = simulation.document;
  out["gpus"] = choice.gpus;
  out["nodes"] = choice.nodes;
  out["home"] = "sequence modulo GPUs";
  out["placement"] = choice.placement.empty() ? "contiguous" : choice.placement;
  out["layers"] = Document::array();
  std::vector<uint64_t> sum(size_t(choice.gpus) * size_t(choice.gpus), 0);
  uint64_t all = 0, local = 0;
  double seconds = 0;
  for (int row = 0; row < shape.rows; ++row) {
    const auto pairs = traffic.pairs(row), tokens = traffic.tokens(row);
    const auto recv = received(pairs, choice.gpus), recv_tokens = received(tokens, choice.gpus);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += tokens[i];
    uint64_t layer_pairs = 0, at_home = 0;
    for (size_t i = 0; i < pairs.size(); ++i) {
      layer_pairs += pairs[i];
      if (i % (size_t(choice.gpus) + 1) == 0) at_home += pairs[i];
    }
    all += layer_pairs;
    local += at_home;
    Document layer = {
        {"layer", simulation.layer(row)},
        {"pairs", layer_pairs},
        {"local", share(at_home, layer_pairs)},
        {"recv_max_over_mean", share(*std::max_element(recv.begin(), recv.end()) * uint64_t(choice.gpus), layer_pairs)},
        {"max_in_or_out_pairs", busiest_port(pairs, choice.gpus)},
        {"max_in_or_out_tokens", busiest_port(tokens, choice.gpus)},
        {"recv", recv},
        {"recv_dedup", recv_tokens},
        {"M", square(pairs, choice.gpus)},
        {"Md", square(tokens, choice.gpus)}};
    if (choice.nodes > 1) layer["node_tokens"] = square(traffic.node_tokens(row), choice.nodes);
    if (choice.hidden > 0 && link.bytes_per_s > 0) {
      const double dispatch = all_to_all_seconds(tokens, choice.gpus, choice.hidden * choice.dispatch_bytes, link);
      const double combine = all_to_all_seconds(tokens, choice.gpus, choice.hidden * choice.combine_bytes, link);
      layer["dispatch_s"] = dispatch;
      layer["combine_s"] = combine;
      seconds += dispatch + combine;
    }
    out["layers"].push_back(std::move(layer));
  }
  out["local"] = share(local, all);
  if (choice.hidden > 0 && link.bytes_per_s > 0) out["seconds"] = seconds;
  if (choice.leaves > 0) out["fabric"] = fabric_of(choice, sum);
  return simulation.show();
}

}  // namespace

void add_simulate_traffic(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace) {
  const auto [command, choice] = add_simulation<TrafficChoice>(
      noun, cli, trace, "traffic", "Expert parallelism: who sends how much to whom, and the network under it.",
      "  switchyard simulate run.moetrace.h5 traffic --gpus 8 --placement placement.json --hidden "
      "2048 --bandwidth-gb 50 --latency-us 5",
      simulate_traffic);
  command->add_option("--gpus", choice->gpus, "GPUs, all nodes together")->required()->check(CLI::Range(1, 4096));
  command->add_option("--nodes", choice->nodes, "Nodes (1)")->check(CLI::Range(1, 4096));
  command->add_option("--placement", choice->placement, "A result of place --json (contiguous experts)")
      ->type_name("FILE");
  command->add_option("--hidden", choice->hidden, "Hidden size, for bytes and seconds")->check(CLI::Range(0, 1 << 24));
  command->add_option("--dispatch-bytes", choice->dispatch_bytes, "Bytes a number on the way to the experts (1)")
      ->check(CLI::Range(0.0, 64.0));
  command->add_option("--combine-bytes", choice->combine_bytes, "Bytes a number on the way back (2)")
      ->check(CLI::Range(0.0, 64.0));
  command->add_option("--bandwidth-gb", choice->bandwidth_gb, "GB/s of a GPU's port")->check(CLI::Range(0.0, 1e9));
  command->add_option("--latency-us", choice->latency_us, "Microseconds a message starts with")
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--leaves", choice->leaves, "Leaf switches")->check(CLI::Range(0, 4096));
  command->add_option("--spines", choice->spines, "Spine switches")->check(CLI::Range(0, 4096));
  command->add_option("--draws", choice->draws, "ECMP: hash seeds tried (1000)")->check(CLI::Range(1, 1'000'000));
  command->add_option("--seed", choice->seed, "ECMP: of the draws (0)");
}

}  // namespace switchyard

// Expert parallelism and the network under it (specs/analyses.md A13).
#include <algorithm>

#include "engine/base/json_file.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/hop_counter.h"
#include "engine/placement/leaf_spine.h"
#include "engine/placement/traffic.h"
#include "engine/studies/placement_document.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

struct Machine {
  int gpus = 0, nodes = 1, hidden = 0, leaves = 0, spines = 0, draws = 0;
  double dispatch_bytes = 0, combine_bytes = 0;
  uint64_t seed = 0;
  Link link;

  bool timed() const { return hidden > 0 && link.bytes_per_s > 0; }
};

Machine machine_of(const StudyOptions& options) {
  return {.gpus = options.number<int>("gpus"),
          .nodes = options.number<int>("nodes"),
          .hidden = options.number<int>("hidden"),
          .leaves = options.number<int>("leaves"),
          .spines = options.number<int>("spines"),
          .draws = options.number<int>("draws"),
          .dispatch_bytes = options.number<double>("dispatch-bytes"),
          .combine_bytes = options.number<double>("combine-bytes"),
          .seed = options.number<uint64_t>("seed"),
          .link = {options.number<double>("bandwidth-gb") * 1e9, options.number<double>("latency-us") * 1e-6}};
}

Result<void> check_machine(const StudyOptions& options) {
  const Machine machine = machine_of(options);
  if (machine.gpus % machine.nodes != 0)
    return fail(ErrorCode::kUsage,
                fmt::format("{} GPUs do not divide evenly over {} nodes.", machine.gpus, machine.nodes), "--nodes",
                "Give a divisor of --gpus.");
  if ((machine.leaves > 0) != (machine.spines > 0))
    return fail(ErrorCode::kUsage, "a network needs both --leaves and --spines.");
  if (machine.leaves > 0 && machine.gpus % machine.leaves != 0)
    return fail(ErrorCode::kUsage,
                fmt::format("{} GPUs do not divide evenly over {} leaves.", machine.gpus, machine.leaves), "--leaves",
                "Give a divisor of --gpus.");
  return {};
}

struct NamedPlaces {
  ExpertPlaces places;
  std::string name;
};

// Of the file that is named, of the placement in memory, or contiguous.
Result<NamedPlaces> places_of(const StudyRun& run, int gpus) {
  const TraceShape& shape = run.shape();
  if (const std::string& file = run.options.text("placement"); !file.empty()) {
    SY_TRY(const Json json, read_json_file(file));
    SY_TRY(ExpertPlaces places, read_placement(JsonView(json, file), shape.rows, shape.experts, gpus));
    return NamedPlaces{std::move(places), file};
  }
  if (run.input.placement != nullptr) {
    const std::string& name = run.input.placement_name;
    SY_TRY(ExpertPlaces places, read_placement(JsonView(*run.input.placement, name), shape.rows, shape.experts, gpus));
    return NamedPlaces{std::move(places), name};
  }
  if (shape.experts % gpus != 0)
    return fail(ErrorCode::kUsage, fmt::format("{} experts do not divide evenly over {} GPUs.", shape.experts, gpus),
                "--gpus", "Give a divisor of the number of experts, or --placement FILE.");
  return NamedPlaces{
      ExpertPlaces(contiguous_placement(shape.rows, shape.experts, gpus), shape.rows, shape.experts, gpus),
      "contiguous"};
}

Document square(std::span<const uint64_t> matrix, int n) {
  Document rows = Document::array();
  for (int i = 0; i < n; ++i) rows.push_back(list_of(matrix.subspan(size_t(i) * size_t(n), size_t(n))));
  return rows;
}

Document fabric_of(const Machine& machine, std::span<const uint64_t> tokens) {
  const double item = machine.hidden > 0 ? machine.hidden * machine.dispatch_bytes : 1.0;
  const auto flows = flows_of(tokens, machine.gpus, machine.leaves, item);
  const LinkLoads sprayed = spray(flows, machine.leaves, machine.spines),
                  cut = split_paths(flows, machine.leaves, machine.spines);
  const auto largest = ecmp_largest(flows, machine.leaves, machine.spines, machine.seed, machine.draws);
  const auto quantile = [&](double q) {
    const double at = q * double(largest.size() - 1);
    const size_t below = size_t(at);
    return largest[below] + (at - double(below)) * (largest[std::min(below + 1, largest.size() - 1)] - largest[below]);
  };
  double mean = 0;
  for (const double load : largest) mean += load / double(largest.size());
  return {{"leaves", machine.leaves},
          {"spines", machine.spines},
          {"unit", machine.hidden > 0 ? "bytes" : "tokens"},
          {"flows", flows.size()},
          {"flow_cv", flow_cv(flows)},
          {"spray_max", sprayed.largest()},
          {"split_max", cut.largest()},
          {"split_extra_flows", cut.extra_flows},
          {"whole_max", whole_paths(flows, machine.leaves, machine.spines).largest()},
          {"ecmp_mean", mean},
          {"ecmp_p50", quantile(0.5)},
          {"ecmp_p95", quantile(0.95)},
          {"ecmp_max", largest.back()},
          {"ecmp_draws", machine.draws},
          {"seed", machine.seed},
          {"up", sprayed.up}};
}

uint64_t sum_of(std::span<const uint64_t> values) {
  uint64_t sum = 0;
  for (const uint64_t value : values) sum += value;
  return sum;
}

uint64_t diagonal_of(std::span<const uint64_t> matrix, int n) {
  uint64_t sum = 0;
  for (size_t i = 0; i < size_t(n); ++i) sum += matrix[i * (size_t(n) + 1)];
  return sum;
}

Document layer_of(const Traffic& traffic, const Machine& machine, int row, int layer) {
  const int gpus = machine.gpus;
  const auto pairs = traffic.pairs(row), tokens = traffic.tokens(row);
  const auto recv = received(pairs, gpus);
  const uint64_t all = sum_of(pairs);
  Document out = {{"layer", layer},
                  {"pairs", all},
                  {"local", share(diagonal_of(pairs, gpus), all)},
                  {"recv_max_over_mean", share(*std::max_element(recv.begin(), recv.end()) * uint64_t(gpus), all)},
                  {"max_in_or_out_pairs", busiest_port(pairs, gpus)},
                  {"max_in_or_out_tokens", busiest_port(tokens, gpus)},
                  {"recv", recv},
                  {"recv_dedup", received(tokens, gpus)},
                  {"M", square(pairs, gpus)},
                  {"Md", square(tokens, gpus)}};
  if (machine.nodes > 1) out["node_tokens"] = square(traffic.node_tokens(row), machine.nodes);
  if (machine.timed()) {
    out["dispatch_s"] = all_to_all_seconds(tokens, gpus, machine.hidden * machine.dispatch_bytes, machine.link);
    out["combine_s"] = all_to_all_seconds(tokens, gpus, machine.hidden * machine.combine_bytes, machine.link);
  }
  return out;
}

Result<Document> run_traffic(StudyRun& run) {
  const Machine machine = machine_of(run.options);
  const TraceShape& shape = run.shape();
  SY_TRY(NamedPlaces of, places_of(run, machine.gpus));
  Traffic traffic(std::move(of.places), machine.nodes);
  std::vector<int> home;
  SY_CHECK(run.walk({}, [&](const RoutingSlab& slab) -> Result<void> {
    home.clear();
    for (const uint32_t sequence : slab.sequence) home.push_back(home_gpu(sequence, machine.gpus));
    for (int row = 0; row < shape.rows; ++row) SY_CHECK(traffic.feed(slab, row, home));
    return {};
  }));
  Document out = {
      {"gpus", machine.gpus}, {"nodes", machine.nodes}, {"home", "sequence modulo GPUs"}, {"placement", of.name}};
  out["layers"] = Document::array();
  std::vector<uint64_t> sum(size_t(machine.gpus) * size_t(machine.gpus), 0);
  uint64_t all = 0, local = 0;
  double seconds = 0;
  for (int row = 0; row < shape.rows; ++row) {
    const auto pairs = traffic.pairs(row), tokens = traffic.tokens(row);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += tokens[i];
    all += sum_of(pairs);
    local += diagonal_of(pairs, machine.gpus);
    Document layer = layer_of(traffic, machine, row, run.layer(row));
    if (machine.timed()) seconds += layer["dispatch_s"].get<double>() + layer["combine_s"].get<double>();
    out["layers"].push_back(std::move(layer));
  }
  out["local"] = share(local, all);
  if (machine.timed()) out["seconds"] = seconds;
  if (machine.leaves > 0) out["fabric"] = fabric_of(machine, sum);
  return out;
}

}  // namespace

StudyInfo traffic_study() {
  return {StudyKind::kSimulation,
          "traffic",
          "A13",
          "Expert parallelism: who sends how much to whom, and the network under it",
          {gpus_option(4096), whole_option("nodes", "1", "Nodes", 1, 4096),
           file_option("placement", "A result of place --json (contiguous experts)"),
           whole_option("hidden", "", "Hidden size, for bytes and seconds", 0, 1 << 24),
           real_option("dispatch-bytes", "1", "Bytes a number on the way to the experts", 0, 64),
           real_option("combine-bytes", "2", "Bytes a number on the way back", 0, 64),
           real_option("bandwidth-gb", "", "GB/s of a GPU's port", 0, 1e9),
           real_option("latency-us", "", "Microseconds a message starts with", 0, 1e9),
           whole_option("leaves", "", "Leaf switches", 0, 4096), whole_option("spines", "", "Spine switches", 0, 4096),
           whole_option("draws", "1000", "ECMP: hash seeds tried", 1, 1e6), seed_option("ECMP: of the draws")},
          {"--gpus 8 --placement placement.json --hidden 2048 --bandwidth-gb 50 --latency-us 5"},
          true,
          false,
          "layers.values",
          "recv",
          check_machine,
          run_traffic};
}

}  // namespace switchyard

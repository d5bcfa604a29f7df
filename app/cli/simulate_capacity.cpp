// switchyard simulate capacity: what an expert capacity would have dropped (specs/analyses.md A14).

#include <fmt/format.h>

#include "app/cli/simulation.h"
#include "engine/placement/capacity_simulation.h"

namespace switchyard {
namespace {

struct CapacityChoice {
  std::string factors = "1,1.25,1.5,2", fill = "rank-major", rounding = "floor";
  int64_t min_capacity = 0;
  int group_tokens = 0;
};

Result<int> simulate_capacity(Cli& cli, const SimulatedTrace& trace, const CapacityChoice& choice) {
  CapacityOptions settings;
  SY_TRY(settings.fill, parse_fill_order(choice.fill));
  SY_TRY(settings.rounding, parse_capacity_rounding(choice.rounding));
  settings.min_capacity = choice.min_capacity;
  settings.group_tokens = choice.group_tokens;
  SY_TRY(const std::vector<double> factors, numbers<double>(choice.factors, "--factors", 1e-6, 1e6));
  Simulation simulation(cli, trace, "capacity");
  SY_CHECK(simulation.open());
  const TraceShape& shape = simulation.shape();
  if (!shape.ranked && settings.fill != FillOrder::kTokenMajor)
    return fail(ErrorCode::kUsage, "the order of slots is unknown, and this --fill depends on it.", trace.trace,
                "Use --fill token-major.");
  std::vector<CapacitySimulation> runs;
  for (const double factor : factors) {
    settings.factor = factor;
    runs.emplace_back(shape.rows, shape.experts, settings);
  }
  std::set<std::string> fields;
  if (settings.fill == FillOrder::kPrioritised) fields.insert("/routing/weight");
  SY_CHECK(simulation.run(fields, [&](const RoutingSlab& slab) -> Result<void> {
    for (CapacitySimulation& run : runs) SY_CHECK(run.feed(slab));
    return {};
  }));
  Document& out = simulation.document;
  out["fill"] = choice.fill;
  out["rounding"] = choice.rounding;
  out["min_capacity"] = choice.min_capacity;
  out["group"] = choice.group_tokens > 0 ? Document(choice.group_tokens) : Document("sequence");
  out["factors"] = Document::array();
  for (size_t i = 0; i < runs.size(); ++i) {
    CapacitySimulation& run = runs[i];
    run.finish();
    uint64_t drops = 0, demands = 0;
    Document layers = Document::array();
    for (int row = 0; row < shape.rows; ++row) {
      const uint64_t dropped = run.drops()[size_t(row)], demanded = run.demands()[size_t(row)];
      drops += dropped;
      demands += demanded;
      layers.push_back({{"layer", simulation.layer(row)},
                        {"drops", dropped},
                        {"demands", demanded},
                        {"drop_ratio", share(dropped, demanded)}});
    }
    Document factor = {{"capacity_factor", factors[i]},
                       {"groups", run.groups()},
                       {"drops", drops},
                       {"demands", demands},
                       {"drop_ratio", share(drops, demands)},
                       {"layers", std::move(layers)},
                       {"drops_by_position", list_of(run.drops_by_position())},
                       {"demands_by_position", list_of(run.demands_by_position())}};
    if (!run.demands_by_domain().empty()) {
      Document domains = Document::array();
      for (size_t d = 0; d < run.demands_by_domain().size(); ++d) {
        if (run.demands_by_domain()[d] == 0) continue;
        domains.push_back({{"domain", d < shape.domains.size() ? shape.domains[d] : std::to_string(d)},
                           {"drops", run.drops_by_domain()[d]},
                           {"demands", run.demands_by_domain()[d]},
                           {"drop_ratio", share(run.drops_by_domain()[d], run.demands_by_domain()[d])}});
      }
      factor["domains"] = std::move(domains);
    }
    out["factors"].push_back(std::move(factor));
  }
  return simulation.show();
}

}  // namespace

void add_simulate_capacity(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace) {
  const auto [command, choice] = add_simulation<CapacityChoice>(
      noun, cli, trace, "capacity", "An expert capacity: what would have been dropped, and where.",
      "  switchyard simulate run.moetrace.h5 capacity --group 2048 --min-capacity 4", simulate_capacity);
  command->add_option("--factors", choice->factors, "Capacity factors joined by commas (1,1.25,1.5,2)")
      ->type_name("LIST");
  command->add_option("--fill", choice->fill, "rank-major, token-major or prioritised")->type_name("ORDER");
  command->add_option("--rounding", choice->rounding, "floor, ceil or even")->type_name("KIND");
  command->add_option("--min-capacity", choice->min_capacity, "Never below (0)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->add_option("--group", choice->group_tokens, "Tokens that compete (0: the sequence)")
      ->check(CLI::Range(0, 1 << 30));
}

}  // namespace switchyard

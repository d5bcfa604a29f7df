// switchyard simulate schedule: which tokens run together (specs/analyses.md A9).
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "app/cli/simulation.h"
#include "engine/placement/token_schedule.h"

namespace switchyard {
namespace {

struct ScheduleChoice {
  int batch = 8, limit = 1000;
};

// Expected distinct experts of a batch whose tokens choose k of E at random.
double random_unique(int experts, int k, int tokens) {
  return experts * (1 - std::pow(1 - double(k) / experts, tokens));
}

Result<int> simulate_schedule(Cli& cli, const SimulatedTrace& trace, const ScheduleChoice& choice) {
  Simulation simulation(cli, trace, "schedule");
  SY_CHECK(simulation.open());
  const TraceShape& shape = simulation.shape();
  UniqueExperts unique(shape.rows, shape.experts, choice.batch);
  TokenPaths paths(shape.rows, shape.experts);
  uint64_t pairs = 0, exact = 0, in_order = 0, scheduled = 0;
  SY_CHECK(simulation.run({}, [&](const RoutingSlab& slab) -> Result<void> {
    SY_CHECK(unique.feed(slab));
    for (int t = 0; t < slab.tokens && pairs < uint64_t(choice.limit); ++t) {
      SY_CHECK(paths.add(slab, std::array{t}));
      if (paths.size() < 2 * choice.batch) continue;
      const Schedule best = split_batch(paths);
      ++pairs;
      exact += best.optimal;
      in_order += uint64_t(split_in_order(paths).cost);
      scheduled += uint64_t(best.cost);
      paths.clear();
      if (simulation.task.cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
    }
    return {};
  }));
  unique.finish();
  Document& out = simulation.document;
  out["batch_tokens"] = choice.batch;
  out["batches"] = unique.batches();
  out["random_unique"] = random_unique(shape.experts, shape.k, choice.batch);
  out["layers"] = Document::array();
  for (int row = 0; row < shape.rows; ++row)
    out["layers"].push_back({{"layer", simulation.layer(row)},
                             {"sum_unique", unique.sum_unique()[size_t(row)]},
                             {"mean_unique", share(unique.sum_unique()[size_t(row)], unique.batches())}});
  out["schedule"] = {{"pairs_of_batches", pairs},
                     {"split_exactly", exact},
                     {"in_order_cost", in_order},
                     {"scheduled_cost", scheduled},
                     {"ratio", share(scheduled, in_order)}};
  return simulation.show();
}

}  // namespace

void add_simulate_schedule(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace) {
  const auto [command, choice] = add_simulation<ScheduleChoice>(
      noun, cli, trace, "schedule", "Which tokens run together: distinct experts of batches, in order and regrouped.",
      "  switchyard simulate run.moetrace.h5 schedule --batch 16 --limit 200", simulate_schedule);
  command->add_option("--batch", choice->batch, "Tokens of a batch (8)")->check(CLI::Range(1, 4096));
  command->add_option("--limit", choice->limit, "Pairs of batches that are regrouped (1000)")
      ->check(CLI::Range(0, 1'000'000'000));
}

}  // namespace switchyard

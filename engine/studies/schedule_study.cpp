// Which tokens run together (specs/analyses.md A9).
#include <array>
#include <cmath>

#include "engine/placement/token_schedule.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

// Expected distinct experts of a batch whose tokens choose k of E at random.
double random_unique(int experts, int k, int tokens) {
  return experts * (1 - std::pow(1 - double(k) / experts, tokens));
}

Result<Document> run_schedule(StudyRun& run) {
  const int batch = run.options.number<int>("batch");
  const auto limit = run.options.number<uint64_t>("limit");
  const TraceShape& shape = run.shape();
  UniqueExperts unique(shape.rows, shape.experts, batch);
  TokenPaths paths(shape.rows, shape.experts);
  uint64_t pairs = 0, exact = 0, in_order = 0, scheduled = 0;
  SY_CHECK(run.walk({}, [&](const RoutingSlab& slab) -> Result<void> {
    SY_CHECK(unique.feed(slab));
    for (int t = 0; t < slab.tokens && pairs < limit; ++t) {
      SY_CHECK(paths.add(slab, std::array{t}));
      if (paths.size() < 2 * batch) continue;
      const Schedule best = split_batch(paths);
      ++pairs;
      exact += best.optimal;
      in_order += uint64_t(split_in_order(paths).cost);
      scheduled += uint64_t(best.cost);
      paths.clear();
      if (run.task.cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
    }
    return {};
  }));
  unique.finish();
  Document out = {{"batch_tokens", batch},
                  {"batches", unique.batches()},
                  {"random_unique", random_unique(shape.experts, shape.k, batch)}};
  out["layers"] = Document::array();
  for (int row = 0; row < shape.rows; ++row)
    out["layers"].push_back({{"layer", run.layer(row)},
                             {"sum_unique", unique.sum_unique()[size_t(row)]},
                             {"mean_unique", share(unique.sum_unique()[size_t(row)], unique.batches())}});
  out["schedule"] = {{"pairs_of_batches", pairs},
                     {"split_exactly", exact},
                     {"in_order_cost", in_order},
                     {"scheduled_cost", scheduled},
                     {"ratio", share(scheduled, in_order)}};
  return out;
}

}  // namespace

StudyInfo schedule_study() {
  return {StudyKind::kSimulation,
          "schedule",
          "A9",
          "Which tokens run together: distinct experts of batches, in order and regrouped",
          {whole_option("batch", "8", "Tokens of a batch", 1, 4096),
           whole_option("limit", "1000", "Pairs of batches that are regrouped", 0, 1e9)},
          {"--batch 16 --limit 200"},
          true,
          false,
          "layers",
          "mean_unique",
          nullptr,
          run_schedule};
}

}  // namespace switchyard

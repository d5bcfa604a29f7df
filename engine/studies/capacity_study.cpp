// What an expert capacity would have dropped (specs/analyses.md A14).
#include "engine/placement/capacity_simulation.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

template <auto Parse>
Result<void> parses(std::string_view value) {
  auto parsed = Parse(value);
  return parsed ? Result<void>() : tl::unexpected(std::move(parsed).error());
}

Document domains_of(const CapacitySimulation& run, const TraceShape& shape) {
  Document domains = Document::array();
  for (size_t d = 0; d < run.demands_by_domain().size(); ++d) {
    if (run.demands_by_domain()[d] == 0) continue;
    domains.push_back({{"domain", d < shape.domains.size() ? shape.domains[d] : std::to_string(d)},
                       {"drops", run.drops_by_domain()[d]},
                       {"demands", run.demands_by_domain()[d]},
                       {"drop_ratio", share(run.drops_by_domain()[d], run.demands_by_domain()[d])}});
  }
  return domains;
}

Document factor_of(const StudyRun& run, const CapacitySimulation& of, double factor) {
  uint64_t drops = 0, demands = 0;
  Document layers = Document::array();
  for (int row = 0; row < run.shape().rows; ++row) {
    const uint64_t dropped = of.drops()[size_t(row)], demanded = of.demands()[size_t(row)];
    drops += dropped;
    demands += demanded;
    layers.push_back({{"layer", run.layer(row)},
                      {"drops", dropped},
                      {"demands", demanded},
                      {"drop_ratio", share(dropped, demanded)}});
  }
  Document out = {{"capacity_factor", factor},
                  {"groups", of.groups()},
                  {"drops", drops},
                  {"demands", demands},
                  {"drop_ratio", share(drops, demands)},
                  {"layers", std::move(layers)},
                  {"drops_by_position", list_of(of.drops_by_position())},
                  {"demands_by_position", list_of(of.demands_by_position())}};
  if (!of.demands_by_domain().empty()) out["domains"] = domains_of(of, run.shape());
  return out;
}

Result<Document> run_capacity(StudyRun& run) {
  const StudyOptions& options = run.options;
  CapacityOptions settings;
  SY_TRY(settings.fill, parse_fill_order(options.text("fill")));
  SY_TRY(settings.rounding, parse_capacity_rounding(options.text("rounding")));
  settings.min_capacity = options.number<int64_t>("min-capacity");
  settings.group_tokens = options.number<int>("group");
  const TraceShape& shape = run.shape();
  if (!shape.ranked && settings.fill != FillOrder::kTokenMajor)
    return fail(ErrorCode::kUsage, "the order of slots is unknown, and this --fill depends on it.", run.trace_path(),
                "Use --fill token-major.");
  std::vector<CapacitySimulation> runs;
  const std::vector<double> factors = options.numbers("factors");
  for (const double factor : factors) {
    settings.factor = factor;
    runs.emplace_back(shape.rows, shape.experts, settings);
  }
  std::set<std::string> fields;
  if (settings.fill == FillOrder::kPrioritised) fields.insert("/routing/weight");
  SY_CHECK(run.walk(fields, [&](const RoutingSlab& slab) -> Result<void> {
    for (CapacitySimulation& one : runs) SY_CHECK(one.feed(slab));
    return {};
  }));
  Document out = {{"fill", options.text("fill")},
                  {"rounding", options.text("rounding")},
                  {"min_capacity", settings.min_capacity},
                  {"group", settings.group_tokens > 0 ? Document(settings.group_tokens) : Document("sequence")}};
  out["factors"] = Document::array();
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].finish();
    out["factors"].push_back(factor_of(run, runs[i], factors[i]));
  }
  return out;
}

}  // namespace

StudyInfo capacity_study() {
  StudyOption fill = choice_option("fill", {"rank-major", "token-major", "prioritised"}, "Who is served first");
  fill.check = parses<parse_fill_order>;
  StudyOption rounding =
      choice_option("rounding", {"floor", "ceil", "even"}, "Of the capacity; even: down to an even number");
  rounding.check = parses<parse_capacity_rounding>;
  return {StudyKind::kSimulation,
          "capacity",
          "A14",
          "An expert capacity: what would have been dropped, and where",
          {list_option("factors", "1,1.25,1.5,2", "Capacity factors joined by commas", 1e-6, 1e6), std::move(fill),
           std::move(rounding), whole_option("min-capacity", "0", "Never below", 0, double(int64_t{1} << 40)),
           whole_option("group", "0", "Tokens that compete; 0: the sequence", 0, 1 << 30)},
          {"--group 2048 --min-capacity 4"},
          true,
          false,
          "positions",
          "drop_ratio",
          nullptr,
          run_capacity};
}

}  // namespace switchyard

// See compare_study.h.
#include "engine/studies/compare_study.h"

#include "engine/studies/study_list.h"
#include "engine/trace/trace_json.h"

namespace switchyard {
namespace {

Result<Document> run_compare(StudyRun& run) {
  SY_TRY(const auto other, TraceReader::open(run.options.text("other"), &run.task));
  SY_TRY(const TraceComparison found, compare_traces(run.input.walk->trace(0), *other, &run.task));
  Document out = {{"other", trace_json(other->info())}};
  out.update(comparison_fields(found));
  return out;
}

}  // namespace

Document comparison_fields(const TraceComparison& found) {
  Document layers = Document::array();
  for (size_t row = 0; row < found.rows.size(); ++row)
    layers.push_back({{"layer", found.layers[row]},
                      {"overlap", found.rows[row].overlap},
                      {"jaccard", found.rows[row].jaccard},
                      {"first_difference", found.first_difference[row]}});
  return {{"tokens", found.tokens},
          {"left_out", {{"base", found.left_out_base}, {"other", found.left_out_other}}},
          {"equal_tokens", found.equal_tokens},
          {"random_overlap", double(found.k) / double(found.experts)},
          {"layers", std::move(layers)}};
}

StudyInfo compare_study() {
  StudyOption other = file_option("other", "A trace of the same tokens: of an edit, another checkpoint, a quantisation");
  other.required = true;
  return {StudyKind::kComparison,
          "compare",
          "A6",
          "How much of the routing two traces of the same tokens share, and which layer differs first",
          {other},
          {"--other edited.moetrace.h5"},
          true,
          false,
          "layers",
          "jaccard",
          nullptr,
          run_compare};
}

}  // namespace switchyard

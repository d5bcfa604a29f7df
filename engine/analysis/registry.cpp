// The one list of analyses over traces, and what may keep one from running.
#include <algorithm>

#include "engine/analysis/affinity.h"
#include "engine/analysis/shaped_analysis.h"

namespace switchyard {
namespace analysis {

Document pairs_json(std::span<const uint64_t> counts, int experts, int top) {
  Document out = Document::array();
  for (const ExpertPair& pair : strongest_pairs(counts, experts, top)) out.push_back({{"i", pair.from}, {"j", pair.to}, {"count", pair.count}});
  return out;
}

}  // namespace analysis

namespace {

std::vector<AnalysisInfo>& all_analyses() {
  static std::vector<AnalysisInfo> list = [] {
    std::vector<AnalysisInfo> all = analysis::load_analyses();
    for (auto* part : {analysis::sequence_analyses, analysis::choice_analyses})
      for (AnalysisInfo& info : part()) all.push_back(std::move(info));
    return all;
  }();
  return list;
}

}  // namespace

std::span<const AnalysisInfo> analyses() { return all_analyses(); }

void add_analyses(std::vector<AnalysisInfo> more) {
  for (AnalysisInfo& info : more) all_analyses().push_back(std::move(info));
}

const AnalysisInfo* find_analysis(std::string_view name) {
  for (const AnalysisInfo& info : analyses())
    if (info.name == name) return &info;
  return nullptr;
}

std::vector<std::string> missing_fields(const AnalysisInfo& info, const TraceShape& shape) {
  std::vector<std::string> missing;
  if (shape.counts_only && info.counts_do) return missing;
  const auto held = [&](const char* field) { return std::find(shape.fields.begin(), shape.fields.end(), field) != shape.fields.end(); };
  if (!info.instead.empty() && std::all_of(info.instead.begin(), info.instead.end(), held)) return missing;
  for (const char* field : info.needs)
    if (!held(field)) missing.emplace_back(field);
  return missing;
}

namespace {

// The next step; empty: it is no matter of how one records.
std::string how_to_record(std::string_view field) {
  if (field == "/model/router_weight") return "Record it with --routers.";
  if (field == "/sequences/domain") return "Score texts with a domain (score --texts FILE.jsonl --trace).";
  if (field == "/routing/router_logits") return "Record it with --capture logits.";
  if (field == "/routing/entropy" || field == "/routing/weight") return "Record it with --capture weights.";
  return {};
}

}  // namespace

Result<std::unique_ptr<Analysis>> make_analysis(const AnalysisInfo& info, const TraceShape& shape, const AnalysisOptions& options) {
  const std::vector<std::string> lacking = missing_fields(info, shape);
  std::string missing;
  for (const std::string& field : lacking) missing += (missing.empty() ? "" : ", ") + field;
  if (!missing.empty()) return analysis::usage(std::string(info.name) + " needs " + missing + ", which the trace does not hold.", how_to_record(lacking.front()));
  if (info.needs_rank && !shape.ranked)
    return analysis::usage(std::string(info.name) + " needs experts in the order of their weights; the trace's source did not tell it.");
  return info.make(shape, options);
}

}  // namespace switchyard

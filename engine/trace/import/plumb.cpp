// plumb reports: counts by layer and expert (formats.md F11).
#include <algorithm>
#include <map>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {

bool recognises_plumb(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string start = source.start_of(source.names().front(), 16 << 10);
  return start.find("\"activation_fraction\"") != std::string::npos || (start.find("\"hardware_config\"") != std::string::npos && start.find("\"layers\"") != std::string::npos);
}

Result<void> read_plumb(const DumpSource& source, const ImportOptions&, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; a report is one file.", source.shown());
  SY_TRY(const OpenFile file, source.file(source.names().front()));
  return for_each_document(file, kLongLineCap, [&](const Json& json, const std::string& place, double) -> Result<void> {
    const JsonView report(json, place);
    if (!report.has("layers")) return report.fail("has no \"layers\" with token_count: a summary, not a report of plumb");
    SY_TRY(sink.facts.model, report.text_or("model_name", ""));
    SY_TRY(const std::vector<JsonView> layers, report.array("layers"));
    std::map<int, std::map<int, uint64_t>> sums;
    DumpCounts counts;
    counts.where = place;
    for (const JsonView& layer : layers) {
      SY_TRY(const int64_t id, layer.integer("layer_id", 0, 65'535));
      SY_TRY(const std::vector<JsonView> experts, layer.array("experts"));
      if (sums.contains(int(id)) || sums.size() == 2048) return layer.fail("is there twice, or one too many");
      for (const JsonView& expert : experts) {
        SY_TRY(const int64_t number, expert.integer("expert_id", 0, 65'533));
        SY_TRY(const int64_t count, expert.integer("token_count", 0, int64_t(1) << 52));
        if (!sums[int(id)].emplace(int(number), uint64_t(count)).second) return expert.fail("is there twice");
        counts.experts = std::max(counts.experts, int(number) + 1);
      }
    }
    if (sums.empty() || sums.size() * size_t(counts.experts) > kMaxValues) return report.fail("has no layers, or more than fit into memory");
    counts.set(sums);
    return sink.counts(counts);
  });
}

}  // namespace switchyard::dumps

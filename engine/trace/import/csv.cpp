// CSV of choices (llama.cpp) or counts (the first SGLang recorder) (formats.md F1, F5).
#include <algorithm>
#include <map>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

constexpr uint64_t kCsvLine = 4096;

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find(',', at), line.size());
    std::string cell = line.substr(at, end - at);
    const size_t first = cell.find_first_not_of(" \t\""), last = cell.find_last_not_of(" \t\"");
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
    at = end + 1;
  }
  return cells;
}

using Sums = std::map<int, std::map<int, uint64_t>>;

Result<void> add_file(const OpenFile& file, Sums& sums, int& columns) {
  LineReader lines(file, kCsvLine);
  std::string line;
  for (;;) {
    SY_TRY(const bool more, lines.next(line));
    if (!more) return {};
    if (line.empty()) continue;
    const auto cells = cells_of(line);
    const auto layer = whole_text(cells[0]);
    if (lines.number() == 1 && !layer) {
      const bool known = cells[0].find("layer") != std::string::npos && cells.size() >= 2 && cells[1].find("expert") != std::string::npos;
      if (!known) return fail(ErrorCode::kMalformed, "has the columns " + quote(line) + "; layer,expert or layer_id,expert_id,count are read.", lines.place());
      columns = int(cells.size());
      continue;
    }
    if (columns == 0) columns = int(cells.size());
    if (int(cells.size()) != columns || columns < 2 || columns > 3)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(cells.size()) + " columns, needs layer,expert or layer,expert,count.", lines.place());
    const auto expert = whole_text(cells[1]), count = columns == 3 ? whole_text(cells[2]) : std::optional<int64_t>(1);
    if (!layer || *layer < 0 || *layer > 65'535 || !expert || *expert < 0 || *expert >= kNoExpert || !count || *count < 0)
      return fail(ErrorCode::kMalformed, quote(line) + " is no layer, expert" + (columns == 3 ? " and count." : "."), lines.place());
    sums[int(*layer)][int(*expert)] += uint64_t(*count);
  }
}

}  // namespace

bool recognises_csv(const DumpSource& source) {
  for (const std::string& name : source.names()) {
    if (!name.ends_with(".csv")) continue;
    const std::string start = source.start_of(name, 256);
    return start.find("layer") == 0 || (!start.empty() && start[0] >= '0' && start[0] <= '9');
  }
  return false;
}

Result<void> read_csv(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  Sums sums;
  int columns = 0;
  size_t files = 0;
  for (const std::string& name : source.names()) {
    if (source.is_folder() && !name.ends_with(".csv")) continue;
    SY_TRY(const OpenFile file, source.file(name));
    SY_CHECK(add_file(file, sums, columns));
    sink.progress(double(++files) / double(source.names().size()));
  }
  if (files == 0) return fail(ErrorCode::kNotFound, "holds no .csv.", source.shown());
  if (sums.empty()) return fail(ErrorCode::kMalformed, "holds no row.", source.shown());
  if (files > 1) sink.facts.note("the counts of " + std::to_string(files) + " files, one of each rank, are added up");
  DumpCounts counts;
  counts.where = source.shown();
  counts.experts = options.experts;
  for (const auto& [layer, row] : sums) counts.experts = std::max(counts.experts, row.rbegin()->first + 1);
  if (sums.size() > 2048) return fail(ErrorCode::kMalformed, "names " + std::to_string(sums.size()) + " layers; up to 2,048 are read.", source.shown());
  if (sums.size() * size_t(counts.experts) > kMaxValues) return fail(ErrorCode::kMalformed, "names more layers and experts than fit into memory.", source.shown());
  if (options.experts == 0) sink.facts.note("the number of experts is not in the dump; " + std::to_string(counts.experts) + " is one more than the largest id in it (--experts says it)");
  counts.set(sums);
  return sink.counts(counts);
}

}  // namespace switchyard::dumps

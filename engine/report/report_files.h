// Reports as files: one document by its suffix, pictures with data and script beside it; and made again from what they say of
// themselves. Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/report/request.h"
#include "engine/trace/export/files.h"

namespace switchyard {

struct ReportFiles {
  std::filesystem::path target;   // .html, .pdf, .tex or .md
  std::filesystem::path figures;  // folder of SVG, PDF, PNG, CSV, Parquet and script of each picture; empty: none, but of .tex and
                                  // .md NAME-figures beside the target, which they need
  bool overwrite = false, dry_run = false;
};
// Beside what is no HTML also NAME.report.json. On any error no file is left that was not there before.
Result<std::vector<WrittenFile>> write_report(const Report& report, const ReportFiles& files);
// Before any work: whether the suffix is one of them and nothing is in the way.
Result<void> check_target(const ReportFiles& files);

// The files of one picture or table by their suffix: svg, pdf, png, csv, json, py, npy-free. kUsage: another suffix.
Result<std::string> bytes_of(const ChartSpec& chart, std::string_view suffix, FigureSize size, const ChartColors& colors, double png_scale);
// Parquet of a table, through the Parquet module; whole numbers as int64, reals as double where they are exact, texts as such.
Result<std::string> parquet_of(const ResultTable& table);

struct Rebuilt {
  Report report;
  size_t numbers = 0;  // compared
  struct Change {
    std::string where;  // "/sections/1/blocks/0/table/rows/3/2"
    Document was, is;
  };
  std::vector<Change> changes;
  std::string was_made_by;  // "Switchyard 0.1.0"
};
// file: what write_report() wrote: HTML, a .report.json, or the .pdf, .tex or .md that has one beside it. kMalformed: no
// report of ours; kCheckFailed: an input is another file now than then; kUsage: it cannot be made again.
Result<Rebuilt> rebuild_report(const std::filesystem::path& file, int threads, Task* task);

}  // namespace switchyard

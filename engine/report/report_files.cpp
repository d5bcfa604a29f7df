// See report_files.h.
#include "engine/report/report_files.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/base/module.h"
#include "engine/report/paper.h"
#include "engine/report/table_text.h"
#include "engine/trace/export/parquet_module.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr ModuleName kParquet{.file = "libswitchyard_parquet.so", .variable = "SWITCHYARD_PARQUET_LIB", .symbol = kParquetEntry, .what = "the Parquet module",
                              .hint = "Build it (packaging/setup.sh, then ninja switchyard_parquet), or take the CSV."};
constexpr double kPrintScale = 300.0 / 72;

bool is_picture_beside(const fs::path& target) { return target.extension() == ".tex" || target.extension() == ".md"; }

bool plain_path(std::string_view path) {
  return std::all_of(path.begin(), path.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string_view("-_./").find(c) != std::string_view::npos; });
}

fs::path figures_of(const ReportFiles& files) {
  if (!files.figures.empty() || !is_picture_beside(files.target)) return files.figures;
  std::string stem = files.target.stem().string();
  std::replace_if(stem.begin(), stem.end(), [](char c) { return !plain_path({&c, 1}) || c == '/'; }, '_');
  return files.target.parent_path() / (stem + "-figures");
}

// As the document names the folder.
std::string folder_inside(const ReportFiles& files) {
  const fs::path figures = figures_of(files), base = files.target.parent_path().empty() ? fs::path(".") : files.target.parent_path();
  std::error_code ignored;
  const fs::path from = fs::relative(figures, base, ignored);
  return from.empty() ? figures.generic_string() : from.generic_string();
}

struct Put {
  ExportFiles& out;
  Result<void> operator()(const std::string& name, std::string_view bytes) const {
    SY_CHECK(out.begin(name));
    return out.write(bytes);
  }
};

Result<void> put_table(const Put& put, const std::string& stem, const ResultTable& table, bool& parquet) {
  SY_CHECK(put(stem + ".csv", csv_of(table)));
  SY_CHECK(put(stem + ".json", json_of(table)));
  if (!parquet) return {};
  const auto bytes = parquet_of(table);
  if (!bytes && bytes.error().code == ErrorCode::kNotFound) {  // the module is not installed
    parquet = false;
    return {};
  }
  if (!bytes) return tl::unexpected(bytes.error());
  return put(stem + ".parquet", *bytes);
}

Result<void> put_chart(const Put& put, const std::string& stem, const ChartSpec& chart, bool& parquet) {
  for (const bool wide : {false, true})
    for (const char* suffix : {"svg", "pdf", "png"}) {
      SY_TRY(const std::string bytes, bytes_of(chart, suffix, wide ? kTwoColumns : kOneColumn, print_colors(), kPrintScale));
      SY_CHECK(put(stem + (wide ? "-wide." : ".") + suffix, bytes));
    }
  SY_CHECK(put_table(put, stem, chart_table(chart), parquet));
  return put(stem + ".py", chart_script(chart, stem + ".csv"));
}

Result<void> put_blocks(const Report& report, ExportFiles& folder) {
  const Put put{folder};
  bool parquet = true;
  for (size_t s = 0; s < report.sections.size(); ++s)
    for (size_t b = 0; b < report.sections[s].blocks.size(); ++b) {
      const ReportBlock& block = report.sections[s].blocks[b];
      const std::string stem = block_stem(report, s, b);
      if (const auto* table = std::get_if<ReportTable>(&block.content)) SY_CHECK(put_table(put, stem, table->table, parquet));
      if (const auto* chart = std::get_if<ChartSpec>(&block.content)) SY_CHECK(put_chart(put, stem, *chart, parquet));
    }
  return {};
}

}  // namespace

Result<void> check_target(const ReportFiles& files) {
  const std::string suffix = files.target.extension().string();
  if (suffix != ".html" && suffix != ".pdf" && suffix != ".tex" && suffix != ".md")
    return fail(ErrorCode::kUsage, "ends in " + (suffix.empty() ? "nothing" : suffix) + ", needs .html, .pdf, .tex or .md.", files.target.string());
  if (suffix == ".tex" && !plain_path(folder_inside(files)))
    return fail(ErrorCode::kUsage, "LaTeX reads no pictures from a folder of this name.", files.figures.string(), "Take one of letters, digits, - and _.");
  std::error_code ignored;
  if (!files.overwrite && fs::exists(files.target, ignored)) return fail(ErrorCode::kOutput, "exists already.", files.target.string(), "Choose another name, or overwrite it with --force.");
  return {};
}

Result<std::vector<WrittenFile>> write_report(const Report& report, const ReportFiles& files) {
  SY_CHECK(check_target(files));
  const std::string suffix = files.target.extension().string(), folder = folder_inside(files);
  std::string text;
  if (suffix == ".html") text = html_of(report);
  else if (suffix == ".md") text = markdown_of(report, folder);
  else if (suffix == ".tex") text = latex_of(report, folder);
  else {
    SY_TRY(text, pdf_of(report));
  }
  const Overwrite overwrite = files.overwrite ? Overwrite::kAllow : Overwrite::kRefuse;
  const fs::path figures = figures_of(files);
  ExportFiles pictures(figures, overwrite, files.dry_run), document(files.target, overwrite, files.dry_run);
  if (!figures.empty()) SY_CHECK(put_blocks(report, pictures));
  fs::path beside = files.target;
  ExportFiles data(beside.replace_extension(".report.json"), overwrite, files.dry_run);
  if (suffix != ".html") {
    SY_CHECK(data.begin());
    SY_CHECK(data.write(to_json(report).dump(1, ' ', false, Document::error_handler_t::replace) + "\n"));
  }
  SY_CHECK(document.begin());
  SY_CHECK(document.write(text));
  std::vector<WrittenFile> all;
  for (ExportFiles* one : {&document, &data, &pictures}) {
    SY_TRY(const auto written, one->finish());
    all.insert(all.end(), written.begin(), written.end());
  }
  return all;
}

Result<std::string> bytes_of(const ChartSpec& chart, std::string_view suffix, FigureSize size, const ChartColors& colors, double png_scale) {
  if (suffix == "svg") return svg_of(draw_chart(chart, size), colors);
  if (suffix == "pdf") return pdf_of(draw_chart(chart, size));
  if (suffix == "png") return png_of(draw_chart(chart, size), colors, png_scale);
  if (suffix == "csv") return csv_of(chart_table(chart));
  if (suffix == "json") return json_of(chart_table(chart));
  if (suffix == "py") return chart_script(chart, chart.name + ".csv");
  return fail(ErrorCode::kUsage, "is none of svg, pdf, png, csv, json and py.", std::string(suffix));
}

Result<std::string> parquet_of(const ResultTable& table) {
  SY_TRY(void* const symbol, load_module(kParquet));
  const ParquetModule& module = *reinterpret_cast<ParquetEntry>(symbol)();
  struct Column {
    std::vector<int64_t> whole;
    std::vector<double> reals;
    std::vector<std::string> texts;
    std::vector<const char*> pointers;
  };
  std::vector<Column> held(table.columns.size());
  std::vector<ParquetColumn> columns;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    Column& to = held[c];
    const auto all = [&](const auto& fits) { return std::all_of(table.rows.begin(), table.rows.end(), [&](const auto& row) { return fits(row[c]); }); };
    if (all([](const Document& cell) { return cell.is_number_integer(); })) {
      for (const auto& row : table.rows) to.whole.push_back(row[c].template get<int64_t>());
      columns.push_back({table.columns[c].c_str(), kParquetInt64, to.whole.data()});
    } else if (all([](const Document& cell) { return cell.is_number() || cell.is_null(); })) {
      for (const auto& row : table.rows) to.reals.push_back(row[c].is_null() ? std::numeric_limits<double>::quiet_NaN() : row[c].template get<double>());
      columns.push_back({table.columns[c].c_str(), kParquetDouble, to.reals.data()});
    } else {
      for (const auto& row : table.rows) {
        std::string text = shown_text(cell_text(row[c], 17));
        to.texts.push_back(std::move(text));
      }
      for (const std::string& text : to.texts) to.pointers.push_back(text.c_str());
      columns.push_back({table.columns[c].c_str(), kParquetText, to.pointers.data()});
    }
  }
  struct Sink {
    std::string bytes;
    static const char* write(void* context, const void* from, int64_t count) {
      static_cast<Sink*>(context)->bytes.append(static_cast<const char*>(from), size_t(count));
      return nullptr;
    }
  } sink;
  const auto check = [&](const char* problem) -> Result<void> {
    if (problem == nullptr) return {};
    return fail(ErrorCode::kOutput, std::string("could not be written as Parquet: ") + problem + ".", table.name);
  };
  void* opened = nullptr;
  SY_CHECK(check(module.open({&sink, Sink::write}, columns.data(), int(columns.size()), &opened)));
  std::unique_ptr<void, const char* (*)(void*)> writer(opened, module.close);
  SY_CHECK(check(module.write(opened, columns.data(), int(columns.size()), int64_t(table.rows.size()))));
  SY_CHECK(check(module.close(writer.release())));
  return std::move(sink.bytes);
}

}  // namespace switchyard

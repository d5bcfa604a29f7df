// A report made again from what it says of itself. Any thread.
#include <fstream>
#include <iterator>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/report/report_files.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLargest = size_t(256) << 20;
constexpr std::string_view kBegin = "<template id=\"switchyard-report\">", kEnd = "</template>";

Result<std::string> read_whole(const fs::path& file) {
  std::error_code problem;
  const auto size = fs::file_size(file, problem);
  if (problem) return fail(ErrorCode::kNotFound, "cannot be read: " + problem.message() + ".", file.string());
  if (size > kLargest) return fail(ErrorCode::kMalformed, "is larger than 256 MiB.", file.string());
  std::ifstream in(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

Result<Json> read_report(const fs::path& given) {
  fs::path file = given;
  const std::string suffix = file.extension().string();
  if (suffix == ".pdf" || suffix == ".tex" || suffix == ".md") file.replace_extension(".report.json");
  SY_TRY(std::string text, read_whole(file));
  if (suffix == ".html") {
    const size_t begin = text.rfind(kBegin), end = begin == std::string::npos ? begin : text.find(kEnd, begin);
    if (end == std::string::npos) return fail(ErrorCode::kMalformed, "holds no report of Switchyard.", file.string(), "Its data block is missing: was the page saved by another program?");
    text = text.substr(begin + kBegin.size(), end - begin - kBegin.size());
  }
  JsonLimits limits;
  limits.bytes = kLargest;
  SY_TRY(Json json, parse_json(text, file.string(), limits));
  const JsonView view(json, file.string());
  SY_TRY(const int64_t schema, view.integer("schema", 1, 1'000'000));
  SY_TRY(const std::string type, view.text_or("type", ""));
  if (type != "report") return view.fail("is no report of Switchyard");
  if (schema > kReportSchema) return view.fail("has schema " + std::to_string(schema) + ", this version reads up to " + std::to_string(kReportSchema));
  return json;
}

// The input as it was named, else the file of that name beside the report. Its hash must be the one of then.
Result<std::string> find_input(const JsonView& input, const fs::path& report, Task* task) {
  SY_TRY(std::string path, input.text("path"));
  SY_TRY(const std::string sha256, input.text("sha256"));
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    const fs::path beside = report.parent_path() / fs::path(path).filename();
    if (!fs::exists(beside, ignored)) return fail(ErrorCode::kNotFound, "is not there, nor is a file of its name beside the report.", path, "Put it there; its SHA-256 is " + sha256 + ".");
    path = beside.string();
  }
  SY_TRY(const std::string now, sha256_of_file(path, task));
  if (now != sha256) return fail(ErrorCode::kCheckFailed, "is another file now: SHA-256 " + sha256 + " when the report was made, " + now + " today.", path, "Make a new report of it.");
  return path;
}

void collect(const Json& json, const std::string& path, std::map<std::string, Json>& out) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.items())
      if (key != "command" && key != "caption") collect(value, path + "/" + key, out);
  } else if (json.is_array()) {
    for (size_t i = 0; i < json.size(); ++i) collect(json[i], path + "/" + std::to_string(i), out);
  } else {
    out[path] = json;
  }
}

std::map<std::string, Json> shown_in(const Json& report) {
  std::map<std::string, Json> out;
  if (report.contains("sections")) collect(report["sections"], "/sections", out);
  return out;
}

}  // namespace

Result<Rebuilt> rebuild_report(const fs::path& file, int threads, Task* task) {
  SY_TRY(const Json json, read_report(file));
  const JsonView view(json, file.string());
  if (!view.has("request")) return fail(ErrorCode::kUsage, "does not say what was asked for, so that it cannot be made again.", file.string());
  SY_TRY(const JsonView asked, view.at("request"));
  SY_TRY(ReportRequest request, request_from_json(asked));
  SY_TRY(const auto inputs, view.array("inputs"));
  std::vector<std::string> paths;
  for (const JsonView& input : inputs) {
    SY_TRY(paths.emplace_back(), find_input(input, file, task));
  }
  if (paths.size() != size_t(!request.trace.empty()) + size_t(!request.other.empty())) return view.fail("names another number of inputs than its request");
  if (!request.trace.empty()) request.trace = paths[0];
  if (!request.other.empty()) request.other = paths.back();
  Rebuilt out;
  ComposeOptions options;
  SY_TRY(options.command, view.text_or("command", ""));
  options.threads = threads;
  SY_TRY(out.report, compose_report(request, options, task));
  SY_TRY(const auto provenance, view.array("provenance"));
  if (!provenance.empty() && provenance[0].json().is_array() && provenance[0].json().size() == 2 && provenance[0].json()[1].is_string()) out.was_made_by = provenance[0].json()[1];
  // Through text, as the report of then went.
  SY_TRY(const Json now, parse_json(to_json(out.report).dump(-1, ' ', false, Document::error_handler_t::replace), "the new report", {kLargest}));
  const auto was = shown_in(json), is = shown_in(now);
  for (const auto& [where, value] : was) {
    out.numbers += value.is_number();
    const auto found = is.find(where);
    if (found == is.end()) out.changes.push_back({where, Document(value), Document()});
    else if (found->second != value) out.changes.push_back({where, Document(value), Document(found->second)});
  }
  for (const auto& [where, value] : is)
    if (!was.contains(where)) out.changes.push_back({where, Document(), Document(value)});
  return out;
}

}  // namespace switchyard

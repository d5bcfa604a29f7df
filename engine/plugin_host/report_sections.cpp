#include "engine/plugin_host/report_sections.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/text.h"
#include "engine/plugin_host/check.h"
#include "engine/plugin_host/host.h"
#include "engine/plugin_host/report_limits.h"
#include "engine/plugin_host/trace_fields.h"

namespace switchyard {
namespace {

static_assert(int(ChartKind::kMatrix) == SY_CHART_MATRIX && int(ChartKind::kStrip) == SY_CHART_STRIP &&
              int(ChartKind::kFlow) == SY_CHART_FLOW && int(ChartKind::kPoints) == SY_CHART_POINTS);

std::optional<double> defined(double value) {
  return std::isnan(value) ? std::nullopt : std::optional(value);
}

// One message of the process as a part of the section.
class PartReader {
 public:
  PartReader(const std::string& plugin, Message& message) : plugin_(plugin), message_(message) {}

  Result<std::string> text(const char* key, size_t most) const {
    std::string out = message_.text(key);
    if (out.size() > most) return wrong(fmt::format("gives a {} of more than {} bytes", key, most));
    return out;
  }

  Result<ReportBlock> table() {
    ReportTable out;
    SY_TRY(out.table.name, file_name("table"));
    SY_TRY(std::string caption, text("caption", kReportCaption));
    const Json& columns = message_.head["columns"];
    const uint64_t rows = message_.number("rows");
    if (!columns.is_array() || columns.empty() || columns.size() > kReportColumns || rows > kReportRows)
      return wrong("gives a table of another shape than it may have");
    for (const Json& column : columns) {
      const std::string name = word(column, 0), unit = word(column, 1);
      if (name.empty() || name.size() > kReportName || unit.size() > kReportName)
        return wrong(fmt::format("gives a column without a name of 1 to {} bytes", kReportName));
      out.table.columns.push_back(unit.empty() ? name : name + " (" + unit + ")");
    }
    std::vector<double> cells;
    if (!message_.take(rows * columns.size(), cells)) return wrong("gives a table with fewer cells than rows");
    for (const double cell : cells)
      if (std::isinf(cell))
        return wrong(fmt::format("gives a table {} with a number that is not finite", quote(out.table.name)));
    for (uint64_t row = 0; row < rows; ++row) {
      auto& to = out.table.rows.emplace_back();
      for (size_t c = 0; c < columns.size(); ++c) to.push_back(cell_of(cells[row * columns.size() + c]));
    }
    for (const Json& one : message_.head["words"]) {
      if (!one.is_array() || one.size() != 2 || !one[0].is_number_unsigned() || !one[1].is_string() ||
          one[0].get<uint64_t>() >= cells.size() || one[1].get_ref<const std::string&>().size() > kReportName)
        return wrong(fmt::format("gives a cell of more than {} bytes", kReportName));
      const size_t at = one[0];
      out.table.rows[at / columns.size()][at % columns.size()] = one[1].get<std::string>();
    }
    return ReportBlock{std::move(out), std::move(caption), {}};
  }

  Result<ReportBlock> chart() {
    ChartSpec out;
    const uint64_t kind = message_.number("kind");
    if (kind > SY_CHART_POINTS) return wrong(fmt::format("gives a chart of kind {}, which is unknown here", kind));
    out.kind = ChartKind(kind);
    SY_TRY(out.name, file_name("chart"));
    SY_TRY(out.title, text("title", kReportTitle));
    SY_TRY(std::string caption, text("caption", kReportCaption));
    for (const auto& [key, to] : {std::pair{"quantity", &out.quantity},
                                  {"row_title", &out.row_title},
                                  {"column_title", &out.column_title},
                                  {"mark_title", &out.mark_title},
                                  {"baseline_title", &out.baseline_title},
                                  {"side_a", &out.side_a},
                                  {"side_b", &out.side_b}}) {
      SY_TRY(*to, text(key, kReportName));
    }
    SY_CHECK(names("rows", out.rows));
    SY_CHECK(names("columns", out.columns));
    out.categories = message_.head["categories"] == true;
    const size_t cells = out.rows.size() * out.columns.size();
    if (out.rows.size() > kReportCells || out.columns.size() > kReportCells || cells > kReportCells)
      return wrong(fmt::format("gives a chart of more than {} cells", kReportCells));
    std::vector<double> lines;
    bool whole = message_.take(2, lines);
    if (out.kind != ChartKind::kFlow && out.kind != ChartKind::kPoints) whole = whole && values(cells, out.values);
    if (message_.has("band")) whole = whole && values(cells, out.low) && values(cells, out.high);
    if (message_.has("marked")) whole = whole && message_.take(cells, out.marked);
    whole = whole && links(out) && points(out);
    if (!whole) return wrong("gives a chart with fewer values than its shape");
    out.middle = defined(lines[0]), out.baseline = defined(lines[1]);
    if ((out.middle && !std::isfinite(*out.middle)) || (out.baseline && !std::isfinite(*out.baseline)))
      return wrong(fmt::format("gives a chart {} with a number that is not finite", quote(out.name)));
    if (const auto sound = check(out); !sound) return wrong("gives a " + sound.error().message());
    if (out.empty()) return wrong(fmt::format("gives a chart {} without values", quote(out.name)));
    if (caption.empty()) caption = out.title.empty() ? "" : out.title + ".";
    return ReportBlock{std::move(out), std::move(caption), {}};
  }

  tl::unexpected<Error> wrong(const std::string& what) const {
    return fail(ErrorCode::kPlugin, fmt::format("the plugin {} {}{}", plugin_, what, what.ends_with('.') ? "" : "."));
  }

 private:
  static std::string word(const Json& list, size_t at) {
    return list.is_array() && at < list.size() && list[at].is_string() ? list[at].get<std::string>() : std::string();
  }
  static Document cell_of(double value) {
    if (std::isnan(value)) return nullptr;
    if (value == std::floor(value) && std::abs(value) < 9e15) return int64_t(value);
    return value;
  }
  Result<std::string> file_name(const char* key) const {
    SY_TRY(std::string out, text(key, kReportFile));
    const auto fits = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    };
    if (out.empty() || !std::all_of(out.begin(), out.end(), fits))
      return wrong(fmt::format("gives a {} of the name {}, needs letters, digits, - and _", key, quote(out)));
    return out;
  }
  Result<void> names(const char* key, std::vector<std::string>& out) const {
    for (const Json& one : message_.head[key]) {
      if (!one.is_string() || one.get_ref<const std::string&>().size() > kReportName)
        return wrong(fmt::format("gives a name of more than {} bytes", kReportName));
      out.push_back(one.get<std::string>());
    }
    return {};
  }
  bool values(size_t count, std::vector<std::optional<double>>& out) {
    std::vector<double> list;
    if (!message_.take(count, list)) return false;
    for (const double one : list) out.push_back(defined(one));
    return true;
  }
  bool links(ChartSpec& out) {
    const uint64_t count = message_.number("links");
    std::vector<uint32_t> places;
    std::vector<double> width;
    if (count > kReportLinks || !message_.take(3 * count, places) || !message_.take(count, width)) return false;
    for (size_t i = 0; i < count; ++i)
      out.links.push_back({int(std::min(places[3 * i], 65'536u)), int(std::min(places[3 * i + 1], 65'536u)),
                           int(std::min(places[3 * i + 2], 65'536u)), width[i]});
    return true;
  }
  bool points(ChartSpec& out) {
    const Json& list = message_.head["points"];
    std::vector<double> numbers;
    if (list.size() > kReportLinks || !message_.take(2 * list.size(), numbers)) return false;
    for (size_t i = 0; i < list.size(); ++i) out.points.push_back({word(list, i), numbers[2 * i], numbers[2 * i + 1]});
    return true;
  }

  const std::string& plugin_;
  Message& message_;
};

Result<void> add_part(const std::string& plugin, Message& message, SectionParts& out) {
  PartReader part(plugin, message);
  if (message.has("heading")) {
    SY_TRY(out.heading, part.text("heading", kReportTitle));
    return {};
  }
  if (out.blocks.size() == kReportParts) return part.wrong(fmt::format("gives more than {} parts", kReportParts));
  if (message.has("text")) {
    SY_TRY(std::string markdown, part.text("text", kReportText));
    out.blocks.push_back({ReportText{std::move(markdown)}, {}, {}});
    return {};
  }
  if (!message.has("table") && !message.has("chart")) return part.wrong("sends what is no message");
  SY_TRY(ReportBlock block, message.has("table") ? part.table() : part.chart());
  out.blocks.push_back(std::move(block));
  return {};
}

Result<SectionParts> make_section(const Plugin& plugin, const Contribution& contribution, const TraceReader& trace,
                                  const std::map<std::string, std::string>& options, Task* task) {
  const auto& fields = trace.info().fields;
  for (const std::string& field : contribution.needs)
    if (std::find(fields.begin(), fields.end(), field) == fields.end())
      return fail(ErrorCode::kUsage, fmt::format("it needs {}, which the trace does not hold.", field), {},
                  "Record it with a higher --capture.");
  SY_TRY(const std::vector<double> parameters, parameter_values(contribution.parameters, options));
  SY_TRY(const auto child, plugin.child(PluginKind::kReport, contribution.id, task));
  return section_of(
      *child, plugin.id(), trace.info(), parameters, [&](const Message& asked) { return trace_values(trace, asked); },
      task);
}

GivenSection given_of(const std::shared_ptr<Plugin>& plugin, const Contribution& contribution) {
  GivenSection out;
  out.name = contribution.id, out.title = contribution.title;
  out.maker = "plugin " + plugin->id() + " " + plugin->manifest().version;
  out.sha256 = plugin->sha256();
  for (const PluginField& field : contribution.parameters)
    out.options.push_back(
        {field.name, fmt::format("{} ({})", field.title.empty() ? std::string(name(field.type)) : field.title,
                                 field.text_of(field.standard).value_or(""))});
  out.why_not = [plugin] { return plugin->why_not(); };
  out.check = [&contribution](const std::map<std::string, std::string>& options) -> Result<void> {
    SY_CHECK(parameter_values(contribution.parameters, options));
    return {};
  };
  out.analysis = contribution.analysis, out.note = contribution.text;
  if (contribution.kind == PluginKind::kReport)
    out.make = [plugin, &contribution](const TraceReader& trace, const std::map<std::string, std::string>& options,
                                       Task* task) {
      return make_section(*plugin, contribution, trace, options, task);
    };
  return out;
}

}  // namespace

Result<SectionParts> section_of(PluginChild& child, const std::string& plugin, const TraceInfo& info,
                                const std::vector<double>& parameters, const ReadTrace& read, Task* task,
                                std::vector<std::string>* changed) {
  Message begin;
  begin.head = {{"op", "report"}, {"parameters", parameters}};
  describe_trace(info, begin.head);
  SectionParts out;
  SY_TRY(Message message, child.ask(begin));
  while (!message.has("done")) {
    Message answer;
    if (message.has("field")) {
      SY_TRY(answer, read(message));
    } else {
      SY_CHECK(add_part(plugin, message, out));
    }
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
    SY_TRY(message, child.ask(answer));
  }
  if (changed)
    for (const Json& one : message.head.value("changed", Json::array()))
      changed->push_back(one.is_string() ? one.get<std::string>() : "");
  if (out.blocks.empty()) return fail(ErrorCode::kPlugin, fmt::format("the plugin {} gave an empty section.", plugin));
  return out;
}

Result<std::vector<double>> parameter_values(const std::vector<PluginField>& fields,
                                             const std::map<std::string, std::string>& given) {
  std::vector<PluginField> set = fields;
  for (const auto& [key, value] : given) {
    const auto field = std::find_if(set.begin(), set.end(), [&](const PluginField& one) { return one.name == key; });
    if (field == set.end()) {
      std::vector<std::string> names;
      for (const PluginField& one : fields) names.push_back(one.name);
      return fail(ErrorCode::kUsage, "is no option of this section.", printable(key, 100),
                  names.empty() ? "It has none." : fmt::format("It has {}.", fmt::join(names, ", ")));
    }
    SY_TRY(field->standard, field->value_of(value));
  }
  return standard_parameters(set);
}

void register_plugin_sections(PluginHost& host) {
  std::vector<GivenSection> added;
  for (const PluginKind kind : {PluginKind::kReport, PluginKind::kSection})
    for (const auto& [plugin, contribution] : host.contributions(kind))
      added.push_back(given_of(plugin, *contribution));
  add_given_sections(std::move(added));
}

}  // namespace switchyard

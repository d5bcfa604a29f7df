// The parts of a report section, from the plugin's structs into messages. What is out of bounds is refused here, before
// it is read; what it says is judged by the program.
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "engine/plugin_host/child/remote.h"
#include "engine/plugin_host/code.h"
#include "engine/plugin_host/report_limits.h"

namespace switchyard::plugin_child {
namespace {

int refuse(const sy_report_out* to, std::string why) {
  auto& report = *const_cast<RemoteReport*>(reinterpret_cast<const RemoteReport*>(to));
  if (report.wrong.empty()) report.wrong = std::move(why);
  return 1;
}

// 0: the program has it.
int give(const sy_report_out* to, const Message& message) {
  Wire& wire = *reinterpret_cast<const RemoteReport*>(to)->wire;
  if (message.head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).size() > kReportWords)
    return refuse(to, fmt::format("gives more than {} MiB of words at once", kReportWords >> 20));
  if (!wire.send(message)) return 1;
  return wire.receive() ? 0 : 1;
}

// At most a byte more than it may have, so that the program sees that it is too long.
std::string text_of(const char* text, size_t most) {
  return text ? std::string(text, strnlen(text, most + 1)) : std::string();
}

nlohmann::json names_of(const char* const* names, size_t count) {
  nlohmann::json out = nlohmann::json::array();
  for (size_t i = 0; i < count; ++i) out.push_back(text_of(names ? names[i] : nullptr, kReportName));
  return out;
}

// Elements of an array of the other side, whose size the first of them says.
template <class T>
T element(const T* list, size_t i) {
  return known_part(reinterpret_cast<const T*>(reinterpret_cast<const char*>(list) + i * list->struct_size));
}

int take_table(const sy_report_out* to, const sy_report_table* given) {
  if (!given || given->struct_size < sizeof(uint32_t) * 2) return refuse(to, "gives a table without a size");
  const sy_report_table table = known_part(given);
  const size_t columns = table.column_count;
  if (columns == 0 || columns > kReportColumns || table.row_count > kReportRows || !table.columns)
    return refuse(to, fmt::format("gives a table of {} columns and {} rows, needs 1 to {} and {} at most", columns,
                                  table.row_count, kReportColumns, kReportRows));
  const size_t cells = columns * size_t(table.row_count);
  if (cells > 0 && !table.numbers) return refuse(to, "gives a table without numbers");
  Message message;
  message.head = {{"table", text_of(table.name, kReportTitle)},
                  {"caption", text_of(table.caption, kReportCaption)},
                  {"rows", table.row_count},
                  {"columns", nlohmann::json::array()},
                  {"words", nlohmann::json::array()}};
  for (size_t c = 0; c < columns; ++c) {
    const sy_column column = element(table.columns, c);
    message.head["columns"].push_back({text_of(column.name, kReportName), text_of(column.unit, kReportName)});
  }
  for (size_t i = 0; table.texts && i < cells; ++i)
    if (table.texts[i]) message.head["words"].push_back({i, text_of(table.texts[i], kReportName)});
  message.put(std::span(table.numbers, cells));
  return give(to, message);
}

void put_links(const sy_report_chart& chart, Message& message) {
  std::vector<uint32_t> places;
  std::vector<double> values;
  for (uint32_t i = 0; i < chart.link_count; ++i) {
    const sy_report_link link = element(chart.links, i);
    places.insert(places.end(), {link.column, link.from, link.to});
    values.push_back(link.value);
  }
  message.put(std::span<const uint32_t>(places));
  message.put(std::span<const double>(values));
}

void put_points(const sy_report_chart& chart, Message& message) {
  nlohmann::json names = nlohmann::json::array();
  std::vector<double> values;
  for (uint32_t i = 0; i < chart.point_count; ++i) {
    const sy_report_point point = element(chart.points, i);
    names.push_back(text_of(point.name, kReportName));
    values.insert(values.end(), {point.effect, point.q});
  }
  message.head["points"] = std::move(names);
  message.put(std::span<const double>(values));
}

int take_chart(const sy_report_out* to, const sy_report_chart* given) {
  if (!given || !SY_HAS(given->struct_size, sy_report_chart, values))
    return refuse(to, "gives a chart whose struct is too small");
  const bool grown = SY_HAS(given->struct_size, sy_report_chart, side_b);
  const sy_report_chart chart = known_part(given);
  const bool placed = chart.kind == SY_CHART_FLOW || chart.kind == SY_CHART_POINTS;
  const uint64_t cells = uint64_t(chart.rows) * chart.columns;
  if (chart.rows > kReportCells || chart.columns > kReportCells || cells > kReportCells ||
      chart.link_count > kReportLinks || chart.point_count > kReportLinks)
    return refuse(
        to, fmt::format("gives a chart of {} x {} cells, {} links and {} points; {} cells and {} links or "
                        "points are the most",
                        chart.rows, chart.columns, chart.link_count, chart.point_count, kReportCells, kReportLinks));
  if ((!placed && cells > 0 && !chart.values) || (chart.link_count > 0 && !chart.links) ||
      (chart.point_count > 0 && !chart.points))
    return refuse(to, "gives a chart without values");
  Message message;
  message.head = {{"chart", text_of(chart.name, kReportTitle)},
                  {"kind", chart.kind},
                  {"title", text_of(chart.title, kReportTitle)},
                  {"caption", text_of(chart.caption, kReportCaption)},
                  {"quantity", text_of(chart.quantity, kReportName)},
                  {"row_title", text_of(chart.row_title, kReportName)},
                  {"column_title", text_of(chart.column_title, kReportName)},
                  {"rows", names_of(chart.row_names, chart.rows)},
                  {"columns", names_of(chart.column_names, chart.columns)},
                  {"mark_title", text_of(chart.mark_title, kReportName)},
                  {"baseline_title", text_of(chart.baseline_title, kReportName)},
                  {"side_a", text_of(chart.side_a, kReportName)},
                  {"side_b", text_of(chart.side_b, kReportName)},
                  {"categories", chart.categories != 0},
                  {"links", chart.link_count}};
  const double lines[] = {grown ? chart.middle : NAN, grown ? chart.baseline : NAN};
  message.put(std::span<const double>(lines));
  if (!placed) message.put(std::span(chart.values, cells));
  if (!placed && chart.low && chart.high) {
    message.head["band"] = true;
    message.put(std::span(chart.low, cells));
    message.put(std::span(chart.high, cells));
  }
  if (!placed && chart.marked) {
    message.head["marked"] = true;
    message.put(std::span(chart.marked, cells));
  }
  put_links(chart, message);
  put_points(chart, message);
  return give(to, message);
}

}  // namespace

RemoteReport report_over(Wire& wire) {
  RemoteReport out{};
  out.wire = &wire;
  out.table.struct_size = sizeof(sy_report_out);
  out.table.heading = [](const sy_report_out* to, const char* text) {
    Message message;
    message.head["heading"] = text_of(text, kReportTitle);
    return give(to, message);
  };
  out.table.text = [](const sy_report_out* to, const char* markdown) {
    Message message;
    message.head["text"] = text_of(markdown, kReportText);
    return give(to, message);
  };
  out.table.table = take_table;
  out.table.chart = take_chart;
  return out;
}

}  // namespace switchyard::plugin_child

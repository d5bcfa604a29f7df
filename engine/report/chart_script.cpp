// Charts as Python: reads the CSV beside it, draws with matplotlib. Any thread.
#include <fmt/format.h>

#include "engine/report/chart.h"

namespace switchyard {
namespace {

// A Python literal: JSON's is one, as long as nothing is written as a pair of surrogates.
std::string literal(const std::string& text) { return Document(shown_text(text)).dump(-1, ' ', false, Document::error_handler_t::replace); }

constexpr const char* kHead = R"(#!/usr/bin/env python3
# {title}: drawn again from {data} with matplotlib. Usage: python3 THIS.py [OUT.pdf]
# Made by Switchyard; the command that makes the numbers stands in the report.
import csv
import math
import pathlib
import sys

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt

here = pathlib.Path(__file__).resolve()


def plain(text):  # the CSV guards text that a spreadsheet would run
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in "=+-@" else text


def number(text):
    return float(text) if text else math.nan


with open(here.with_name({data}), newline="", encoding="utf-8") as file:
    entries = list(csv.DictReader(file))
columns = 2 if "--wide" in sys.argv else 1
plt.rcParams.update({{"font.size": 7, "axes.titlesize": 8, "axes.titleweight": "bold", "pdf.fonttype": 42, "text.parse_math": False}})
figure, axes = plt.subplots(figsize=((3.25, 2.2) if columns == 1 else (6.75, 3.2)), layout="constrained")
axes.set_title({title}, loc="left")
)";

constexpr const char* kGrid = R"(
rows = list(dict.fromkeys(plain(e["row"]) for e in entries))
names = list(dict.fromkeys(plain(e["column"]) for e in entries))
values = {(plain(e["row"]), plain(e["column"])): number(e["value"]) for e in entries}
)";

constexpr const char* kFoot = R"(
out = [a for a in sys.argv[1:] if not a.startswith("--")]
figure.savefig(out[0] if out else here.with_suffix(".redrawn.pdf"))
)";

std::string body(const ChartSpec& c) {
  const std::string row = literal(c.row_title), column = literal(c.column_title), quantity = literal(c.quantity);
  switch (c.kind) {
    case ChartKind::kHeatMap:
    case ChartKind::kMatrix: {
      std::string out = std::string(kGrid) + "grid = [[values.get((r, n), math.nan) for n in names] for r in rows]\n";
      out += c.middle ? fmt::format("reach = max(abs(v - {0}) for v in values.values() if not math.isnan(v))\n"
                                    "image = axes.imshow(grid, aspect=\"{1}\", cmap=\"PuOr_r\", vmin={0} - reach, vmax={0} + reach, interpolation=\"nearest\")\n", *c.middle, c.kind == ChartKind::kMatrix ? "equal" : "auto")
                      : fmt::format("image = axes.imshow(grid, aspect=\"{}\", cmap=\"cividis\", interpolation=\"nearest\")\n", c.kind == ChartKind::kMatrix ? "equal" : "auto");
      if (!c.marked.empty())
        out += "for e in entries:\n"
               "    if e[\"marked\"] == \"1\":\n"
               "        axes.add_patch(plt.Rectangle((names.index(plain(e[\"column\"])) - 0.5, rows.index(plain(e[\"row\"])) - 0.5), 1, 1, fill=False, hatch=\"////\", linewidth=0))\n";
      return out + fmt::format("figure.colorbar(image, label={})\naxes.set_xlabel({})\naxes.set_ylabel({})\n", quantity, column, row) +
             "every = max(1, len(names) // 12)\naxes.set_xticks(range(0, len(names), every), names[::every])\n"
             "every = max(1, len(rows) // 16)\naxes.set_yticks(range(0, len(rows), every), rows[::every])\n";
    }
    case ChartKind::kBars:
    case ChartKind::kLines: {
      const bool bars = c.kind == ChartKind::kBars;
      std::string out = kGrid;
      out += "try:\n    at = [float(n) for n in names]\nexcept ValueError:\n    at = list(range(len(names)))\n";
      if (bars) out += "at = list(range(len(names)))\n";
      out += "for i, r in enumerate(rows):\n    y = [values.get((r, n), math.nan) for n in names]\n";
      out += bars ? "    axes.bar([a + (i + 0.5) / len(rows) * 0.8 - 0.4 for a in at], y, 0.8 / len(rows), label=r)\n" : "    axes.plot(at, y, marker=\"osv^D<>\"[i % 7], markersize=2.5, linewidth=1, label=r)\n";
      if (!c.low.empty())
        out += "    low = [number(e[\"low\"]) for e in entries if plain(e[\"row\"]) == r]\n    high = [number(e[\"high\"]) for e in entries if plain(e[\"row\"]) == r]\n"
               "    axes.fill_between(at, low, high, alpha=0.2)\n";
      if (c.baseline) out += fmt::format("axes.axhline({}, linestyle=\"--\", linewidth=0.8, color=\"0.3\", label={})\n", *c.baseline, literal(c.baseline_title));
      out += fmt::format("axes.set_xlabel({})\naxes.set_ylabel({})\n", column, quantity);
      out += "every = max(1, len(names) // 12)\naxes.set_xticks(at[::every], names[::every])\n";
      return out + (c.rows.size() > 1 || c.baseline ? "axes.legend()\n" : "");
    }
    case ChartKind::kRidge:
      return std::string(kGrid) + "for i, r in enumerate(rows):\n    y = [values.get((r, n), 0) for n in names]\n    peak = max(y) or 1\n"
             "    axes.fill_between(range(len(names)), [-i] * len(names), [v / peak * 2 - i for v in y], step=\"mid\", alpha=0.5, zorder=i)\n"
             "axes.set_yticks([-i for i in range(len(rows))], rows)\n" +
             fmt::format("every = max(1, len(names) // 8)\naxes.set_xticks(range(0, len(names), every), names[::every])\naxes.set_xlabel({})\naxes.set_ylabel({})\n", column, row);
    case ChartKind::kStrip:
      return "values = [number(e[\"value\"]) for e in entries]\nwidth = 32\nlines = math.ceil(len(values) / width)\n"
             "grid = [values[i * width:(i + 1) * width] + [math.nan] * max(0, (i + 1) * width - len(values)) for i in range(lines)]\n"
             "image = axes.imshow(grid, aspect=\"auto\", cmap=\"cividis\", interpolation=\"nearest\")\n"
             "for i, e in enumerate(entries):\n    axes.text(i % width, i // width, plain(e[\"column\"]).replace(\"\\n\", \"↵\"), fontsize=3, ha=\"center\", va=\"center\", color=\"white\")\n"
             "axes.set_axis_off()\n" + fmt::format("figure.colorbar(image, label={})\n", quantity);
    case ChartKind::kFlow:
      return "layers = list(dict.fromkeys(n for e in entries for n in (e[\"from_layer\"], e[\"to_layer\"])))\n"
             "most = max((number(e[\"value\"]) for e in entries), default=1)\nfor e in entries:\n    share = number(e[\"value\"]) / most\n"
             "    axes.plot([layers.index(e[\"from_layer\"]), layers.index(e[\"to_layer\"])], [int(e[\"from_expert\"]), int(e[\"to_expert\"])],\n"
             "              linewidth=0.3 + 3 * share, alpha=0.3 + 0.6 * share, color=f\"C{int(e['from_expert']) % 7}\")\n"
             "axes.set_xticks(range(len(layers)), layers)\naxes.invert_yaxis()\n" +
             fmt::format("axes.set_xlabel({})\naxes.set_ylabel({})\n", column, row);
    case ChartKind::kPoints:
      return "effect = [number(e[\"effect\"]) for e in entries]\nq = [number(e[\"q\"]) for e in entries]\n"
             "top = max([-math.log10(v) for v in q if v > 0] + [1.5])\nheight = [-math.log10(v) if v > 0 else top * 1.05 for v in q]\n"
             "axes.scatter(effect, height, s=4, c=[\"C0\" if v < 0.05 else \"0.6\" for v in q])\naxes.axhline(-math.log10(0.05), linestyle=\"--\", linewidth=0.8, color=\"0.3\")\n" +
             fmt::format("axes.set_xlabel({})\naxes.set_ylabel(\"-log10 q\")\n", quantity);
  }
  return {};
}

}  // namespace

std::string chart_script(const ChartSpec& chart, std::string_view data) {
  std::string head = kHead;
  const auto put = [&](const std::string& what, const std::string& with) {
    for (size_t at = head.find(what); at != std::string::npos; at = head.find(what, at + with.size())) head.replace(at, what.size(), with);
  };
  put("{{", "{"), put("}}", "}");
  put("{data}", literal(std::string(data)));
  // The comment is one line whatever the title holds.
  const std::string title = literal(chart.title);
  put("{title}", title);
  return head + body(chart) + kFoot;
}

}  // namespace switchyard

// A report section: reads a trace through the program and gives text, tables and charts back to it, as values.
#include <algorithm>
#include <string>
#include <vector>

#include <switchyard/plugin.hpp>

struct Section : sy::ReportSection {
  void write(const sy_trace& trace, std::span<const double> parameters, const sy::ReportOut& out) override {
    const uint64_t tokens = std::min(trace.tokens, uint64_t(parameters[0]));
    sy::ReportChart chart{.kind = SY_CHART_HEAT_MAP, .name = "first-choices", .title = "First choices", .quantity = "share of tokens",
                          .row_title = "layer", .column_title = "expert"};
    for (uint32_t e = 0; e < trace.experts; ++e) chart.columns.push_back(std::to_string(e));
    for (uint32_t row = 0; row < trace.rows; ++row) {
      std::vector<double> share(trace.experts);
      constexpr uint64_t kAtOnce = 4096;
      for (uint64_t first = 0; first < tokens; first += kAtOnce) {
        const uint64_t count = std::min(kAtOnce, tokens - first);
        const auto ids = sy::values_of<int32_t>(trace, SY_FIELD_ID, row, first, count, trace.k);
        for (uint64_t t = 0; t < count; ++t)
          if (ids[t * trace.k] >= 0) share[size_t(ids[t * trace.k])] += 1 / double(tokens);
      }
      chart.rows.push_back(std::to_string(trace.layers[row]));
      chart.values.insert(chart.values.end(), share.begin(), share.end());
    }
    out.text("How often an expert is a token's **first choice**, layer by layer, of " + std::to_string(tokens) + " tokens.");
    out.chart(chart);
  }
};

SWITCHYARD_PLUGIN(plugin) { plugin.report_section<Section>("@ID@.section"); }

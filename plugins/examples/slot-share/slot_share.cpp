// How much of a token's routing weight each of its slots carries: share s of slot j is w_j over the sum of the token's
// weights. Mean over the tokens, by layer and slot, and how many tokens have a last slot below a least share: what a
// router with one expert less would cost them at most.
#include <algorithm>
#include <string>
#include <vector>

#include <switchyard/plugin.hpp>

namespace {

struct Layer {
  std::vector<double> share;  // [k] sums over the tokens
  double tokens = 0, light = 0;
};

Layer read(const sy_trace& trace, uint32_t row, double least) {
  Layer out{std::vector<double>(trace.k)};
  constexpr uint64_t kAtOnce = 4096;
  for (uint64_t first = 0; first < trace.tokens; first += kAtOnce) {
    const uint64_t count = std::min(kAtOnce, trace.tokens - first);
    const auto ids = sy::values_of<int32_t>(trace, SY_FIELD_ID, row, first, count, trace.k);
    const auto weights = sy::values_of<float>(trace, SY_FIELD_WEIGHT, row, first, count, trace.k);
    for (uint64_t t = 0; t < count; ++t) {
      double sum = 0, last = 0;
      for (size_t i = t * trace.k; i < (t + 1) * trace.k; ++i)
        if (ids[i] >= 0) sum += double(weights[i]);
      if (sum <= 0) continue;
      for (uint32_t slot = 0; slot < trace.k; ++slot) {
        if (ids[t * trace.k + slot] < 0) continue;
        last = double(weights[t * trace.k + slot]) / sum;
        out.share[slot] += last;
      }
      out.tokens += 1, out.light += last < least;
    }
  }
  return out;
}

struct Slots : sy::ReportSection {
  void write(const sy_trace& trace, std::span<const double> parameters, const sy::ReportOut& out) override {
    const double least = parameters[0];
    sy::ReportChart chart{.kind = SY_CHART_HEAT_MAP,
                          .name = "slot-share",
                          .title = "Mean share of the routing weight",
                          .caption = "Mean share of the routing weight that a slot carries, by layer.",
                          .quantity = "share",
                          .row_title = "layer",
                          .column_title = "slot"};
    sy::ReportTable table{"light-tokens",
                          "Tokens whose last slot carries less than the least share.",
                          {sy::column("layer"), sy::column("tokens"), sy::column("light", "tokens"),
                           sy::column("first_slot", "share"), sy::column("judgement")}};
    for (uint32_t slot = 0; slot < trace.k; ++slot) chart.columns.push_back(std::to_string(slot));
    double light = 0, tokens = 0;
    for (uint32_t row = 0; row < trace.rows; ++row) {
      const Layer layer = read(trace, row, least);
      chart.rows.push_back(std::to_string(trace.layers[row]));
      for (const double share : layer.share) chart.values.push_back(layer.tokens > 0 ? share / layer.tokens : NAN);
      light += layer.light, tokens += layer.tokens;
      const bool many = layer.light > layer.tokens / 2;
      table.rows.push_back({double(trace.layers[row]), layer.tokens, layer.light,
                            layer.tokens > 0 ? layer.share[0] / layer.tokens : NAN,
                            many ? "most could do with one expert less" : "the last slot counts"});
    }
    const int percent = tokens > 0 ? int(100 * light / tokens + 0.5) : 0;
    out.text("Of all decisions, **" + std::to_string(percent) + " %** give their last slot less than " +
             std::to_string(least).substr(0, 5) + " of the weight.");
    out.chart(chart);
    out.table(table);
  }
};

}  // namespace

SWITCHYARD_PLUGIN(plugin) {
  plugin.report_section<Slots>("slot-share.slots");
}

// See shown.h.
#include "engine/report/shown.h"

#include <algorithm>

#include <fmt/format.h>

namespace switchyard::reports {
namespace {

void make_relative(ChartSpec& chart) {
  const size_t width = chart.columns.size();
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    double sum = 0;
    size_t count = 0;
    for (size_t c = 0; c < width; ++c)
      if (const auto& value = chart.values[r * width + c]) sum += *value, ++count;
    for (size_t c = 0; c < width && sum > 0; ++c)
      if (auto& value = chart.values[r * width + c]) *value *= double(count) / sum;
  }
  chart.middle = 1;
  chart.quantity += " relative to the mean of the layer";
}

// Rows whose first key has its first value.
ResultTable first_layer(const ResultTable& table) {
  ResultTable out{table.name, {}, {}};
  const auto layer = size_t(std::find(table.columns.begin(), table.columns.end(), "layer") - table.columns.begin());
  if (layer == table.columns.size() || table.rows.empty()) return table;
  for (const std::string& column : table.columns)
    if (column != "layer") out.columns.push_back(column);
  for (const auto& row : table.rows) {
    if (row[layer] != table.rows[0][layer]) continue;
    out.rows.push_back(row);
    out.rows.back().erase(out.rows.back().begin() + std::ptrdiff_t(layer));
  }
  return out;
}

const Document* at_path(const Document& object, std::string_view path) {
  const Document* at = &object;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string key(path.substr(0, end));
    if (!at->is_object() || !at->contains(key)) return nullptr;
    at = &(*at)[key];
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return at;
}

void make_ridge(ChartSpec& chart, const std::string& quantity, const Document& object) {
  chart.kind = ChartKind::kRidge;
  const Document* top = at_path(object, "top/" + quantity);
  if (top == nullptr || !top->is_number() || chart.columns.empty()) return;
  const double width = top->get<double>() / double(chart.columns.size());
  for (size_t c = 0; c < chart.columns.size(); ++c) chart.columns[c] = fmt::format("{:.3g}", width * (double(c) + 0.5));
  chart.column_title = quantity == "entropy" ? "entropy in nats (middle of the bin)" : quantity == "margin" ? "margin between logits (middle of the bin)" : "mass of the chosen (middle of the bin)";
  chart.quantity = "tokens";
}

}  // namespace

const Usual* usual_of(std::string_view source) {
  using F = UsualFigure;
  static const std::vector<Usual> list = {
      {"load", {{"layers.values", "counts", "Load of every expert, relative to uniform", F::kRelative}, {"layers", "maxvio", "MaxVio of every layer"}}, {"layers"}},
      {"load-over-time", {{"layers.windows", "maxvio", "MaxVio, window after window"}}, {}},
      {"entropy", {{"layers", "mean_entropy+entropy_of_mean+mutual_information", "Entropy of the gate, of its mean, and what is left"}}, {"layers"}},
      {"distribution", {{"layers.values", "entropy", "Entropy of the tokens, layer by layer", F::kRidge}, {"layers.values", "topk_mass", "Mass of the chosen experts", F::kRidge}}, {}},
      {"affinity", {{"transitions.top1.top_pairs", "flow", "Which expert follows which"}, {"transitions", "top1.mi_bits+top1.chance_mi_bits", "Mutual information of first choices, against chance"}}, {"transitions"}},
      {"next-layer-prediction", {{"transitions", "transition_recall+frequency_recall", "Recall of the next layer's experts", F::kNone, "random_recall"}}, {"transitions"}},
      {"repetition", {{"layers", "mean_overlap", "Shared experts of neighbouring tokens", F::kNone, "random/overlap"}}, {"layers"}},
      {"srp", {{"windows.layers", "srp", "Segment routing best performance, by window"}}, {"windows"}},
      {"coactivation", {}, {"layers.top_pairs"}},
      {"saliency", {{"layers.criteria.rank", "rank", "Pruning criteria, expert by expert"}}, {"layers.agreement"}},
      {"logit-similarity", {{"layers.cosine", "value", "Cosine of logit columns, first layer", F::kFirstLayer}}, {}},
      {"router-similarity", {{"layers.cosine", "value", "Cosine of router rows, first layer", F::kFirstLayer}}, {"layers"}},
      {"long-tail", {{"layers", "n80+n90", "Experts that carry 80 and 90 % of the load"}}, {"layers"}},
      {"esft", {{"layers.scores", "scores", "Scores of the experts"}}, {"summary"}},
      {"trace compare", {{"layers", "jaccard", "Shared experts, layer by layer"}, {"layers", "overlap", "Overlap, layer by layer", F::kNone, "random_overlap"}}, {"summary", "layers"}},
      {"place eplb", {{"layers", "balancedness", "Balance of the GPUs, against contiguous experts"}, {"experts", "gpu", "Which GPU holds which expert"}}, {"summary", "layers"}},
      {"place affinity", {{"transitions", "cut", "Hops between GPUs, against contiguous experts"}, {"experts", "gpu", "Which GPU holds which expert"}}, {"summary", "transitions"}},
  };
  for (const Usual& one : list)
    if (source == one.source) return &one;
  return nullptr;
}

ChartSpec figure_of(std::string_view source, const std::vector<ResultTable>& tables, const FigureChoice& choice, const Document& object) {
  const auto table = std::find_if(tables.begin(), tables.end(), [&](const ResultTable& one) { return one.name == choice.table; });
  if (table == tables.end()) return {};
  const UsualFigure* usual = nullptr;
  if (const Usual* all = usual_of(source))
    for (const UsualFigure& one : all->figures)
      if (choice.table == one.table && choice.show == one.show) usual = &one;
  ChartSpec chart = usual != nullptr && usual->turn == UsualFigure::kFirstLayer ? chart_of(first_layer(*table), choice.show) : chart_of(*table, choice.show);
  if (chart.empty()) return chart;
  if (source.starts_with("place ") && choice.show == "gpu" && (chart.kind == ChartKind::kHeatMap || chart.kind == ChartKind::kMatrix)) chart.categories = true;
  if (object.contains("a") && object["a"].is_object() && chart.kind == ChartKind::kPoints) {
    chart.side_a = object["a"].value("domain", "A");
    if (object.contains("b") && object["b"].is_object()) chart.side_b = object["b"].value("domain", "B");
  }
  if (chart.column_title == "index") chart.column_title = "expert";
  if (usual == nullptr) return chart;
  chart.title = usual->title;
  if (usual->turn == UsualFigure::kRelative) make_relative(chart);
  if (usual->turn == UsualFigure::kRidge) make_ridge(chart, choice.show, object);
  if (usual->baseline != nullptr)
    if (const Document* value = at_path(object, usual->baseline); value != nullptr && value->is_number()) chart.baseline = value->get<double>(), chart.baseline_title = usual->baseline_title;
  return chart;
}

}  // namespace switchyard::reports

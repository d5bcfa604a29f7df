// A metric over a trace: fed in blocks, merged, and a table at the end.
#include <map>
#include <vector>

#include <switchyard/plugin.hpp>

struct State : sy::MetricState {
  std::map<uint32_t, std::vector<double>> firsts;  // by layer: [E]

  void feed(const sy_block& block) override {
    auto& counts = firsts[block.layer];
    counts.resize(block.experts);
    for (uint32_t t = 0; t < block.tokens; ++t)
      if (const int32_t id = block.id[size_t(t) * block.k]; id >= 0 && (!block.mask || block.mask[t])) counts[size_t(id)] += 1;
  }
  void merge(const sy::MetricState& other) override {
    for (const auto& [layer, counts] : static_cast<const State&>(other).firsts) {
      auto& own = firsts[layer];
      own.resize(counts.size());
      for (size_t e = 0; e < counts.size(); ++e) own[e] += counts[e];
    }
  }
  uint64_t rows(uint32_t) const override {
    uint64_t n = 0;
    for (const auto& [layer, counts] : firsts) n += counts.size();
    return n;
  }
  void result(uint32_t, std::span<double> cells) const override {  // [rows, 3]
    size_t at = 0;
    for (const auto& [layer, counts] : firsts)
      for (size_t e = 0; e < counts.size(); ++e) cells[at++] = layer, cells[at++] = double(e), cells[at++] = counts[e];
  }
};

struct Metric : sy::Metric {
  std::span<const sy_table> tables() const override {
    static const sy_column columns[] = {sy::column("layer"), sy::column("expert"), sy::column("first_choices", "tokens")};
    static const sy_table tables[] = {sy::table("experts", columns)};
    return tables;
  }
  std::unique_ptr<sy::MetricState> create(const sy_trace_shape&) override { return std::make_unique<State>(); }
};

SWITCHYARD_PLUGIN(plugin) { plugin.metric<Metric>("@ID@.metric"); }

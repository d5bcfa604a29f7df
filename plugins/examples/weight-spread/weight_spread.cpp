// Participation ratio of the routing weights: n = (sum w)^2 / sum w^2 for every token and layer, between 1 and k. Mean
// and standard deviation by layer, and a histogram.
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include <switchyard/plugin.hpp>

struct Spread {
  double tokens = 0, sum = 0, squares = 0;
  std::vector<double> bins;
};

struct State : sy::MetricState {
  State(uint32_t k, size_t bins) : k_(k), bins_(bins) {}

  void feed(const sy_block& block) override {
    Spread& layer = layers_[block.layer];
    layer.bins.resize(bins_);
    for (uint32_t t = 0; t < block.tokens; ++t) {
      if (block.mask && !block.mask[t]) continue;
      double sum = 0, squares = 0;
      for (uint32_t slot = 0; slot < block.k; ++slot) {
        if (block.id[size_t(t) * block.k + slot] < 0) continue;
        const double w = double(block.weight[size_t(t) * block.k + slot]);
        sum += w, squares += w * w;
      }
      if (squares <= 0) continue;
      const double n = sum * sum / squares;
      layer.tokens += 1, layer.sum += n, layer.squares += n * n;
      const double place = k_ > 1 ? (n - 1) / (k_ - 1) * double(bins_) : 0;
      layer.bins[size_t(std::clamp(place, 0.0, double(bins_ - 1)))] += 1;
    }
  }
  void merge(const sy::MetricState& other) override {
    for (const auto& [number, theirs] : static_cast<const State&>(other).layers_) {
      Spread& own = layers_[number];
      own.bins.resize(bins_);
      own.tokens += theirs.tokens, own.sum += theirs.sum, own.squares += theirs.squares;
      for (size_t b = 0; b < bins_; ++b) own.bins[b] += theirs.bins[b];
    }
  }
  uint64_t rows(uint32_t table) const override { return layers_.size() * (table == 0 ? 1 : bins_); }
  void result(uint32_t table, std::span<double> cells) const override {
    size_t at = 0;
    for (const auto& [number, layer] : layers_) {
      const double mean = layer.tokens > 0 ? layer.sum / layer.tokens : NAN;
      if (table == 0) {
        cells[at++] = number, cells[at++] = layer.tokens, cells[at++] = mean;
        cells[at++] = layer.tokens > 0 ? std::sqrt(std::max(0.0, layer.squares / layer.tokens - mean * mean)) : NAN;
      } else {
        for (size_t b = 0; b < bins_; ++b)
          cells[at++] = number, cells[at++] = 1 + (k_ - 1) * double(b) / double(bins_), cells[at++] = layer.bins[b];
      }
    }
  }

 private:
  uint32_t k_;
  size_t bins_;
  std::map<uint32_t, Spread> layers_;
};

struct Participation : sy::Metric {
  std::span<const sy_table> tables() const override {
    static const sy_column layers[] = {sy::column("layer"), sy::column("tokens", "tokens"),
                                       sy::column("mean", "experts"), sy::column("deviation", "experts")};
    static const sy_column bins[] = {sy::column("layer"), sy::column("from", "experts"),
                                     sy::column("tokens", "tokens")};
    static const sy_table tables[] = {sy::table("layers", layers), sy::table("histogram", bins)};
    return tables;
  }
  std::unique_ptr<sy::MetricState> create(const sy_trace_shape& shape) override {
    return std::make_unique<State>(shape.k, size_t(sy::host().number("bins")));
  }
};

SWITCHYARD_PLUGIN(plugin) {
  plugin.metric<Participation>("weight-spread.participation");
}

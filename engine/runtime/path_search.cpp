// See path_search.h.
#include "engine/runtime/path_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <tuple>

#include "engine/routing/edit.h"

namespace switchyard {
namespace {

using Passes = std::vector<uint8_t>;

int length_of(const Passes& passes) {
  return std::accumulate(passes.begin(), passes.end(), 0);
}

// Every path one step from this one.
std::vector<Passes> neighbours(const Passes& passes) {
  const int layers = int(passes.size()), length = length_of(passes);
  std::vector<Passes> out;
  const auto add = [&](std::initializer_list<std::pair<int, int>> changes) {
    Passes next = passes;
    for (const auto& [layer, by] : changes) next[size_t(layer)] = uint8_t(next[size_t(layer)] + by);
    if (const int n = length_of(next); n >= 1 && n <= 2 * layers) out.push_back(std::move(next));
  };
  for (int layer = 0; layer < layers; ++layer) {
    const int n = passes[size_t(layer)];
    if (n == 0) continue;
    if (length > 1) add({{layer, -1}});
    int next = layer + 1;
    while (next < layers && passes[size_t(next)] == 0) ++next;
    if (n >= 2 && length > 2)
      add({{layer, -2}});
    else if (next < layers && length > 2)
      add({{layer, -1}, {next, -1}});
    if (n < kMostLayerPasses) add({{layer, 1}});
  }
  return out;
}

struct Node {
  Passes passes;
  int length = 0, visits = 0;
  double wins = 0;
  std::vector<size_t> children;
};

class Tree {
 public:
  Tree(int layers, const PathSearchOptions& options, const std::function<Result<PathScore>(const Passes&)>& score)
      : layers_(layers), options_(options), score_(score), random_(options.seed) {}

  Result<PathSearchResult> grow(Task* task) {
    SY_CHECK(try_path(Passes(size_t(layers_), 1), 0));
    for (int simulation = 1; simulation <= options_.simulations; ++simulation) {
      if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "the search was stopped.");
      if (task) task->report(double(simulation) / double(options_.simulations), "Searching paths");
      std::vector<size_t> walk{0};
      while (true) {
        if (const auto fresh = widen(walk.back())) {
          SY_CHECK(try_path(*fresh, simulation));
          nodes_[walk.back()].children.push_back(nodes_.size() - 1);
          walk.push_back(nodes_.size() - 1);
          break;
        }
        if (nodes_[walk.back()].children.empty()) break;
        walk.push_back(choose(nodes_[walk.back()], simulation));
      }
      const bool success = out_.trials[walk.back()].success;
      for (const size_t node : walk) ++nodes_[node].visits, nodes_[node].wins += success;
    }
    return std::move(out_);
  }

 private:
  // A path next to the node that was not tried yet, where the node may have one more child.
  std::optional<Passes> widen(size_t node) {
    if (double(nodes_[node].children.size()) >= 2 * std::sqrt(double(nodes_[node].visits + 1))) return std::nullopt;
    std::vector<Passes> untried = neighbours(nodes_[node].passes);
    std::erase_if(untried, [&](const Passes& passes) { return known_.contains(passes); });
    if (untried.empty()) return std::nullopt;
    return untried[random_() % untried.size()];
  }

  size_t choose(const Node& node, int simulation) {
    const double chance = double(random_() >> 11) * 0x1p-53;
    if (chance < options_.random) return node.children[random_() % node.children.size()];
    double highest = -std::numeric_limits<double>::infinity();
    size_t best = node.children.front();
    for (const size_t child : node.children) {
      const Node& at = nodes_[child];
      const double bound =
          path_ucb(at.wins, at.visits, simulation, at.length, layers_, options_.exploration, options_.length_penalty);
      if (bound > highest) highest = bound, best = child;
    }
    return best;
  }

  // Node i belongs to trial i.
  Result<void> try_path(const Passes& passes, int simulation) {
    PathTrial trial{
        .passes = passes, .length = length_of(passes), .simulation = simulation, .score = {}, .success = false};
    SY_TRY(trial.score, score_(passes));
    const double own = out_.trials.empty() ? trial.score.ce : out_.trials.front().score.ce;
    trial.success = options_.grade_exact ? trial.score.exact : trial.score.ce <= own + options_.slack;
    known_.insert(passes);
    nodes_.push_back({.passes = passes, .length = trial.length, .visits = 0, .wins = 0, .children = {}});
    out_.trials.push_back(std::move(trial));
    const PathTrial &best = out_.trials[out_.best], &newest = out_.trials.back();
    const auto rank = [](const PathTrial& one) { return std::tuple(!one.success, one.length, one.score.ce); };
    if (newest.success && rank(newest) < rank(best)) out_.best = out_.trials.size() - 1;
    return {};
  }

  const int layers_;
  const PathSearchOptions& options_;
  const std::function<Result<PathScore>(const Passes&)>& score_;
  std::mt19937_64 random_;
  std::vector<Node> nodes_;
  std::set<Passes> known_;
  PathSearchResult out_;
};

}  // namespace

double path_ucb(double wins, int visits, int simulation, int length, int layers, double exploration, double penalty) {
  return wins / visits + exploration * std::sqrt(std::log(double(simulation)) / visits) - penalty * length / layers;
}

Result<PathSearchResult> search_paths(int layers, const PathSearchOptions& options,
                                      const std::function<Result<PathScore>(const std::vector<uint8_t>&)>& score,
                                      Task* task) {
  return Tree(layers, options, score).grow(task);
}

}  // namespace switchyard

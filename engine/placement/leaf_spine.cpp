// Leaf and spine, see leaf_spine.h.
#include "engine/placement/leaf_spine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "engine/base/philox.h"

namespace switchyard {
namespace {

// P(no spine has more than m of n flows): spines take their flows one after the other, each a binomial share of those
// that are left.
double p_at_most(int flows, int spines, int m) {
  std::vector<double> left(size_t(flows) + 1, 0.0), next(left.size());  // by flows not placed yet
  left[size_t(flows)] = 1.0;
  for (int s = spines; s >= 1; --s) {
    std::fill(next.begin(), next.end(), 0.0);
    const double p = 1.0 / s;
    for (int r = 0; r <= flows; ++r) {
      if (left[size_t(r)] == 0) continue;
      if (s == 1) {
        if (r <= m) next[0] += left[size_t(r)];
        continue;
      }
      double binomial = std::pow(1 - p, r);  // C(r, j) p^j (1 - p)^(r - j)
      for (int j = 0; j <= std::min(r, m); ++j) {
        next[size_t(r - j)] += left[size_t(r)] * binomial;
        binomial *= double(r - j) / double(j + 1) * p / (1 - p);
      }
    }
    std::swap(left, next);
  }
  return left[0];
}

uint32_t draw_below(uint64_t seed, uint32_t draw, uint32_t item, uint32_t n) {
  const auto words = philox4x32({item / 4, draw, 0, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
  return uint32_t((uint64_t(words[item % 4]) * n) >> 32);
}

struct Loads {
  LinkLoads out;
  size_t spines;
  Loads(int leaves, int spines_) : spines(size_t(spines_)) {
    out.up.assign(size_t(leaves) * spines, 0.0);
    out.down.assign(size_t(leaves) * spines, 0.0);
  }
  void add(int from, int to, size_t spine, double size) {
    out.up[size_t(from) * spines + spine] += size;
    out.down[size_t(to) * spines + spine] += size;
  }
};

// The flows of each pair of leaves, largest first.
std::map<std::pair<int, int>, std::vector<double>> by_pair(std::span<const Flow> flows) {
  std::map<std::pair<int, int>, std::vector<double>> pairs;
  for (const Flow& flow : flows) pairs[{flow.from, flow.to}].push_back(flow.size);
  for (auto& [pair, sizes] : pairs) std::sort(sizes.begin(), sizes.end(), std::greater<>());
  return pairs;
}

size_t emptiest(std::span<const double> load) {
  return size_t(std::min_element(load.begin(), load.end()) - load.begin());
}

}  // namespace

EqualSplit split_equal_flows(int64_t flows, int64_t spines) {
  EqualSplit split{double(flows) / double(spines), flows / spines};
  const int64_t rest = flows % spines;
  split.parts_per_cut_flow = rest == 0 ? 1 : spines / std::gcd(rest, spines);
  split.extra_flows = rest * (split.parts_per_cut_flow - 1);
  return split;
}

EcmpLoad ecmp_equal_flows(int flows, int spines, uint64_t seed, int trials) {
  constexpr int kExactFlows = 128, kExactSpines = 1024;
  EcmpLoad load;
  load.p_max.assign(size_t(flows) + 1, 0.0);
  load.exact = flows <= kExactFlows && spines <= kExactSpines;
  if (load.exact) {
    double below = 0;
    for (int m = (flows + spines - 1) / spines; m <= flows; ++m) {
      const double at_most = p_at_most(flows, spines, m);
      load.p_max[size_t(m)] = at_most - below;
      below = at_most;
    }
  } else {
    std::vector<int> on(static_cast<size_t>(spines));
    for (int trial = 0; trial < trials; ++trial) {
      std::fill(on.begin(), on.end(), 0);
      for (int f = 0; f < flows; ++f) ++on[draw_below(seed, uint32_t(trial), uint32_t(f), uint32_t(spines))];
      load.p_max[size_t(*std::max_element(on.begin(), on.end()))] += 1.0 / trials;
    }
  }
  for (size_t m = 0; m < load.p_max.size(); ++m) load.expected_max += double(m) * load.p_max[m];
  load.p_best_max = load.p_max[size_t((flows + spines - 1) / spines)];
  return load;
}

double LinkLoads::largest() const {
  double most = 0;
  for (const double load : up) most = std::max(most, load);
  for (const double load : down) most = std::max(most, load);
  return most;
}

LinkLoads spray(std::span<const Flow> flows, int leaves, int spines) {
  Loads loads(leaves, spines);
  for (const Flow& flow : flows)
    for (size_t s = 0; s < size_t(spines); ++s) loads.add(flow.from, flow.to, s, flow.size / spines);
  return loads.out;
}

LinkLoads whole_paths(std::span<const Flow> flows, int leaves, int spines) {
  Loads loads(leaves, spines);
  std::vector<double> on(static_cast<size_t>(spines));
  for (const auto& [pair, sizes] : by_pair(flows)) {
    std::fill(on.begin(), on.end(), 0.0);
    for (const double size : sizes) {
      const size_t spine = emptiest(on);
      on[spine] += size;
      loads.add(pair.first, pair.second, spine, size);
    }
  }
  return loads.out;
}

LinkLoads split_paths(std::span<const Flow> flows, int leaves, int spines) {
  Loads loads(leaves, spines);
  std::vector<double> on(static_cast<size_t>(spines)), to_cut;
  for (const auto& [pair, sizes] : by_pair(flows)) {
    const double share = std::accumulate(sizes.begin(), sizes.end(), 0.0) / spines;
    const double nothing = 1e-12 * share;  // what rounding leaves
    std::fill(on.begin(), on.end(), 0.0);
    to_cut.clear();
    for (const double size : sizes) {
      const size_t spine = emptiest(on);
      if (on[spine] + size > share + nothing) {
        to_cut.push_back(size);
        continue;
      }
      on[spine] += size;
      loads.add(pair.first, pair.second, spine, size);
    }
    for (double size : to_cut) {
      for (int part = 0; size > nothing; ++part) {
        const size_t spine = emptiest(on);
        const double gap = share - on[spine];
        const bool fits = size <= gap + nothing || gap <= nothing;
        const double piece = fits ? size : gap;
        on[spine] += piece;
        size = fits ? 0 : size - piece;
        loads.add(pair.first, pair.second, spine, piece);
        if (part > 0) ++loads.out.extra_flows;
      }
    }
  }
  return loads.out;
}

LinkLoads ecmp(std::span<const Flow> flows, int leaves, int spines, uint64_t seed, uint32_t draw) {
  Loads loads(leaves, spines);
  for (size_t f = 0; f < flows.size(); ++f)
    loads.add(flows[f].from, flows[f].to, draw_below(seed, draw, uint32_t(f), uint32_t(spines)), flows[f].size);
  return loads.out;
}

std::vector<double> ecmp_largest(std::span<const Flow> flows, int leaves, int spines, uint64_t seed, int draws) {
  std::vector<double> largest;
  for (int draw = 0; draw < draws; ++draw)
    largest.push_back(ecmp(flows, leaves, spines, seed, uint32_t(draw)).largest());
  std::sort(largest.begin(), largest.end());
  return largest;
}

std::vector<Flow> flows_of(std::span<const uint64_t> matrix, int gpus, int leaves, double item_bytes) {
  std::vector<Flow> flows;
  for (int from = 0; from < gpus; ++from) {
    for (int to = 0; to < gpus; ++to) {
      const int leaf_from = from * leaves / gpus, leaf_to = to * leaves / gpus;
      const uint64_t items = matrix[size_t(from) * size_t(gpus) + size_t(to)];
      if (leaf_from != leaf_to && items > 0) flows.push_back({leaf_from, leaf_to, double(items) * item_bytes});
    }
  }
  return flows;
}

double flow_cv(std::span<const Flow> flows) {
  if (flows.empty()) return 0;
  double sum = 0, squares = 0;
  for (const Flow& flow : flows) sum += flow.size;
  const double mean = sum / double(flows.size());
  for (const Flow& flow : flows) squares += (flow.size - mean) * (flow.size - mean);
  return mean > 0 ? std::sqrt(squares / double(flows.size())) / mean : 0;
}

}  // namespace switchyard

// Expert-parallel traffic, see traffic.h.
#include "engine/placement/traffic.h"

#include <algorithm>
#include <string>

#include "engine/analysis/check_ids.h"

namespace switchyard {

ExpertPlaces::ExpertPlaces(std::span<const int> gpu_of, int layers, int experts, int gpus)
    : layers_(layers), experts_(experts), gpus_(gpus), gpus_of_(gpu_of.begin(), gpu_of.end()) {
  for (size_t i = 0; i <= gpus_of_.size(); ++i) start_.push_back(i);
}

ExpertPlaces::ExpertPlaces(const EplbPlan& plan)
    : layers_(plan.layers), experts_(plan.experts), gpus_(plan.shape.gpus) {
  const int per_gpu = plan.shape.replicas / plan.shape.gpus;
  start_.push_back(0);
  for (int l = 0; l < layers_; ++l) {
    for (int e = 0; e < experts_; ++e) {
      for (const int slot : plan.slots_of(l, e)) gpus_of_.push_back(slot / per_gpu);
      start_.push_back(gpus_of_.size());
    }
  }
}

Traffic::Traffic(ExpertPlaces places, int nodes)
    : places_(std::move(places)), nodes_(nodes), turn_(size_t(places_.layers()) * size_t(places_.experts()), 0) {
  const size_t layers = size_t(places_.layers()), g = size_t(places_.gpus()), n = size_t(std::max(nodes, 1));
  pairs_.assign(layers * g * g, 0);
  tokens_.assign(layers * g * g, 0);
  node_tokens_.assign(layers * n * n, 0);
}

Result<void> Traffic::feed(const RoutingSlab& slab, int row, std::span<const int> home) {
  const int gpus = places_.gpus();
  if (nodes_ < 1 || gpus % nodes_ != 0)
    return fail(ErrorCode::kUsage,
                std::to_string(gpus) + " GPUs do not divide evenly over " + std::to_string(nodes_) + " nodes.", "",
                "Give a multiple of --nodes as --gpus.");
  SY_CHECK(check_row(row, places_.layers()));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, places_.experts()));
  const size_t g = size_t(gpus), n = size_t(nodes_), layer = size_t(row);
  const auto node_of = [&](size_t gpu) { return gpu * n / g; };
  for (const int from : home) {
    if (from < 0 || from >= gpus)
      return fail(ErrorCode::kMalformed, "home GPU " + std::to_string(from) + " of " + std::to_string(gpus) + ".");
  }
  std::vector<int64_t> seen(g, -1), seen_node(n, -1);
  for (int t = 0; t < slab.tokens; ++t) {
    const size_t from = size_t(home[size_t(t)]);
    for (const ExpertId e : slab.token(row, t)) {
      if (e == kNoExpert) continue;
      const auto copies = places_.of(row, e);
      const size_t to = size_t(copies[turn_[layer * size_t(places_.experts()) + e]++ % copies.size()]);
      ++pairs_[(layer * g + from) * g + to];
      if (seen[to] == t) continue;
      seen[to] = t;
      ++tokens_[(layer * g + from) * g + to];
      if (seen_node[node_of(to)] == t) continue;
      seen_node[node_of(to)] = t;
      ++node_tokens_[(layer * n + node_of(from)) * n + node_of(to)];
    }
  }
  return {};
}

void Traffic::merge(const Traffic& other) {
  const auto add = [](std::vector<uint64_t>& to, const std::vector<uint64_t>& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  };
  add(pairs_, other.pairs_);
  add(tokens_, other.tokens_);
  add(node_tokens_, other.node_tokens_);
}

std::vector<uint64_t> received(std::span<const uint64_t> matrix, int gpus) {
  std::vector<uint64_t> sums(size_t(gpus), 0);
  for (size_t i = 0; i < matrix.size(); ++i) sums[i % size_t(gpus)] += matrix[i];
  return sums;
}

uint64_t busiest_port(std::span<const uint64_t> matrix, int gpus) {
  const size_t g = size_t(gpus);
  std::vector<uint64_t> out(g, 0), in(g, 0);
  for (size_t from = 0; from < g; ++from) {
    for (size_t to = 0; to < g; ++to) {
      if (from == to) continue;
      out[from] += matrix[from * g + to];
      in[to] += matrix[from * g + to];
    }
  }
  return std::max(*std::max_element(out.begin(), out.end()), *std::max_element(in.begin(), in.end()));
}

double all_to_all_seconds(std::span<const uint64_t> matrix, int gpus, double item_bytes, const Link& link) {
  const double port = double(busiest_port(matrix, gpus)) * item_bytes;
  return (link.bytes_per_s > 0 ? port / link.bytes_per_s : 0) + (gpus - 1) * link.latency_s;
}

}  // namespace switchyard

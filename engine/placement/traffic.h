// Expert-parallel traffic (specs/analyses.md A13): what each GPU sends to each other when tokens live on a home GPU and
// experts where a placement puts them.
// Streaming and mergeable; called by the command line and jobs; rows may be fed from different threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"
#include "engine/placement/eplb.h"

namespace switchyard {

// The GPUs of every expert of every layer; several where an expert has copies, which take its tokens in turn.
class ExpertPlaces {
 public:
  // gpu_of: [L, E].
  ExpertPlaces(std::span<const int> gpu_of, int layers, int experts, int gpus);
  explicit ExpertPlaces(const EplbPlan& plan);

  int layers() const { return layers_; }
  int experts() const { return experts_; }
  int gpus() const { return gpus_; }
  std::span<const int> of(int layer, int expert) const {
    const size_t at = size_t(layer) * size_t(experts_) + size_t(expert);
    return std::span(gpus_of_).subspan(start_[at], start_[at + 1] - start_[at]);
  }

 private:
  int layers_, experts_, gpus_;
  std::vector<int> gpus_of_;
  std::vector<size_t> start_;  // [L * E + 1]
};

class Traffic {
 public:
  // nodes divides the GPUs (kUsage otherwise at feed); GPU g is on node g * nodes / gpus.
  Traffic(ExpertPlaces places, int nodes = 1);
  // One routing row. home: [N], GPU of each token, below the number of GPUs.
  Result<void> feed(const RoutingSlab& slab, int row, std::span<const int> home);
  void merge(const Traffic& other);  // of the same places and nodes

  int gpus() const { return places_.gpus(); }
  int nodes() const { return nodes_; }
  // [G, G] token-expert pairs from home GPU (row) to GPU (column), the diagonal included.
  std::span<const uint64_t> pairs(int layer) const { return matrix(pairs_, layer, gpus()); }
  // [G, G]: a token counts once for each GPU that it goes to.
  std::span<const uint64_t> tokens(int layer) const { return matrix(tokens_, layer, gpus()); }
  // [N, N]: a token counts once for each node that it goes to, from the node of its home.
  std::span<const uint64_t> node_tokens(int layer) const { return matrix(node_tokens_, layer, nodes_); }

 private:
  static std::span<const uint64_t> matrix(const std::vector<uint64_t>& all, int layer, int n) {
    return std::span(all).subspan(size_t(layer) * size_t(n) * size_t(n), size_t(n) * size_t(n));
  }

  ExpertPlaces places_;
  int nodes_;
  std::vector<uint32_t> turn_;  // [L, E]: which copy is next
  std::vector<uint64_t> pairs_, tokens_, node_tokens_;
};

// Column sums: what each GPU has to compute.
std::vector<uint64_t> received(std::span<const uint64_t> matrix, int gpus);
// Largest row or column sum without the diagonal: what the busiest port sends or takes.
uint64_t busiest_port(std::span<const uint64_t> matrix, int gpus);

// alpha-beta model of one all-to-all: busiest port * bytes of an item / bandwidth + (G - 1) * latency.
struct Link {
  double bytes_per_s = 0;
  double latency_s = 0;
};
double all_to_all_seconds(std::span<const uint64_t> matrix, int gpus, double item_bytes, const Link& link);

}  // namespace switchyard

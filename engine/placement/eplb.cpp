// EPLB, see eplb.h.
#include "engine/placement/eplb.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

namespace switchyard {
namespace {

// Item indices by falling weight, equals in order.
std::vector<int> falling(std::span<const float> weights) {
  std::vector<int> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return weights[size_t(a)] > weights[size_t(b)]; });
  return order;
}

struct Packed {
  std::vector<int> pack, rank;  // of each item; rank: how many the pack held before
};

Packed pack_evenly(std::span<const float> weights, int packs) {
  const int items = int(weights.size()), per_pack = items / packs;
  Packed packed{std::vector<int>(weights.size()), std::vector<int>(weights.size(), 0)};
  if (per_pack == 1) {
    std::iota(packed.pack.begin(), packed.pack.end(), 0);
    return packed;
  }
  std::vector<float> weight(size_t(packs), 0.0f);
  std::vector<int> held(size_t(packs), 0);
  for (const int item : falling(weights)) {
    int lightest = -1;
    for (int p = 0; p < packs; ++p) {
      if (held[size_t(p)] < per_pack && (lightest < 0 || weight[size_t(p)] < weight[size_t(lightest)])) lightest = p;
    }
    packed.pack[size_t(item)] = lightest;
    packed.rank[size_t(item)] = held[size_t(lightest)]++;
    weight[size_t(lightest)] += weights[size_t(item)];
  }
  return packed;
}

// The slots of one node: which of its experts each holds and as which copy; copies of each expert.
struct Replicated {
  std::vector<int> expert, copy, count;
};

Replicated replicate(std::span<const float> weights, int slots) {
  const int experts = int(weights.size());
  Replicated out{std::vector<int>(size_t(slots)), std::vector<int>(size_t(slots), 0),
                 std::vector<int>(weights.size(), 1)};
  std::iota(out.expert.begin(), out.expert.begin() + experts, 0);
  for (int slot = experts; slot < slots; ++slot) {
    size_t most = 0;
    for (size_t e = 1; e < weights.size(); ++e) {
      if (weights[e] / float(out.count[e]) > weights[most] / float(out.count[most])) most = e;
    }
    out.expert[size_t(slot)] = int(most);
    out.copy[size_t(slot)] = out.count[most]++;
  }
  return out;
}

// One layer: groups to nodes, copies inside each node, slots to the node's GPUs.
void plan_layer(std::span<const float> loads, int groups, int nodes, const EplbShape& shape, std::span<int> slots,
                std::span<int> copies, std::span<int> counts) {
  const int experts = int(loads.size()), group_size = experts / groups;
  std::vector<float> group_load(size_t(groups), 0.0f);
  for (int e = 0; e < experts; ++e) group_load[size_t(e / group_size)] += loads[size_t(e)];
  const Packed group_on = pack_evenly(group_load, nodes);

  const int per_node = experts / nodes, gpus = shape.gpus / nodes, node_slots = shape.replicas / nodes;
  std::vector<int> expert_at(loads.size());  // node by node, groups in the order they were packed
  for (int e = 0; e < experts; ++e) {
    const size_t group = size_t(e / group_size);
    expert_at[size_t(group_on.pack[group] * per_node + group_on.rank[group] * group_size + e % group_size)] = e;
  }
  for (int node = 0; node < nodes; ++node) {
    const auto here = std::span<const int>(expert_at).subspan(size_t(node) * size_t(per_node), size_t(per_node));
    std::vector<float> load;
    for (const int e : here) load.push_back(loads[size_t(e)]);
    const Replicated node_copies = replicate(load, node_slots);
    std::vector<float> share;
    for (const int e : node_copies.expert) share.push_back(load[size_t(e)] / float(node_copies.count[size_t(e)]));
    const Packed on = pack_evenly(share, gpus);
    for (int i = 0; i < node_slots; ++i) {
      const size_t slot = size_t(node * node_slots + on.pack[size_t(i)] * (node_slots / gpus) + on.rank[size_t(i)]);
      slots[slot] = here[size_t(node_copies.expert[size_t(i)])];
      copies[slot] = node_copies.copy[size_t(i)];
    }
    for (int i = 0; i < per_node; ++i) counts[size_t(here[size_t(i)])] = node_copies.count[size_t(i)];
  }
}

Result<void> check_shape(int experts, const EplbShape& s, bool hierarchical) {
  const auto number = [](int n) { return std::to_string(n); };
  const auto misfit = [](std::string what, std::string hint) {
    return fail(ErrorCode::kUsage, std::move(what), "", std::move(hint));
  };
  if (s.replicas < 1 || s.groups < 1 || s.nodes < 1 || s.gpus < 1)
    return misfit("replicas, groups, nodes and GPUs need to be at least 1.",
                  "Give --replicas, --groups, --nodes and --gpus.");
  if (s.replicas < experts)
    return misfit(number(s.replicas) + " replicas cannot hold " + number(experts) + " experts.",
                  "Give --replicas " + number(experts) + " or more.");
  if (s.replicas % s.gpus != 0)
    return misfit(number(s.replicas) + " replicas do not divide evenly over " + number(s.gpus) + " GPUs.",
                  "Give a multiple of --gpus as --replicas.");
  if (s.gpus % s.nodes != 0)
    return misfit(number(s.gpus) + " GPUs do not divide evenly over " + number(s.nodes) + " nodes.",
                  "Give a multiple of --nodes as --gpus.");
  if (hierarchical && experts % s.groups != 0)
    return misfit(number(experts) + " experts do not divide evenly into " + number(s.groups) + " groups.",
                  "Give a divisor of the number of experts as --groups.");
  return {};
}

}  // namespace

std::vector<int> EplbPlan::slots_of(int layer, int expert) const {
  std::vector<int> slots(size_t(logical_count[size_t(layer) * size_t(experts) + size_t(expert)]));
  const size_t first = size_t(layer) * size_t(shape.replicas);
  for (int s = 0; s < shape.replicas; ++s) {
    if (physical_to_logical[first + size_t(s)] == expert) slots[size_t(copy[first + size_t(s)])] = s;
  }
  return slots;
}

Result<EplbPlan> plan_eplb(std::span<const float> loads, int layers, int experts, const EplbShape& shape) {
  if (layers < 1 || experts < 1 || loads.size() != size_t(layers) * size_t(experts))
    return fail(ErrorCode::kMalformed, std::to_string(loads.size()) + " loads are not " + std::to_string(layers) +
                                           " layers of " + std::to_string(experts) + " experts.");
  for (size_t i = 0; i < loads.size(); ++i) {
    if (!std::isfinite(loads[i]) || loads[i] < 0)
      return fail(ErrorCode::kMalformed, "a load needs to be 0 or more and to fit in a float32.",
                  "layer " + std::to_string(i / size_t(experts)) + ", expert " + std::to_string(i % size_t(experts)));
  }
  const bool hierarchical = shape.groups > 0 && shape.nodes > 0 && shape.groups % shape.nodes == 0;
  SY_CHECK(check_shape(experts, shape, hierarchical));
  EplbPlan plan{shape,
                layers,
                experts,
                hierarchical,
                std::vector<int>(size_t(layers) * size_t(shape.replicas)),
                std::vector<int>(size_t(layers) * size_t(shape.replicas)),
                std::vector<int>(loads.size())};
  for (int l = 0; l < layers; ++l) {
    const auto row = [&](auto& values, int width) {
      return std::span(values).subspan(size_t(l) * size_t(width), size_t(width));
    };
    plan_layer(row(loads, experts), hierarchical ? shape.groups : 1, hierarchical ? shape.nodes : 1, shape,
               row(plan.physical_to_logical, shape.replicas), row(plan.copy, shape.replicas),
               row(plan.logical_count, experts));
  }
  return plan;
}

std::vector<int> balanced_packing(std::span<const float> weights, int packs) {
  return pack_evenly(weights, packs).pack;
}

std::vector<double> gpu_loads(const EplbPlan& plan, int layer, std::span<const float> loads) {
  std::vector<double> out(size_t(plan.shape.gpus), 0.0);
  const int per_gpu = plan.shape.replicas / plan.shape.gpus;
  for (int s = 0; s < plan.shape.replicas; ++s) {
    const size_t e = size_t(plan.physical_to_logical[size_t(layer) * size_t(plan.shape.replicas) + size_t(s)]);
    out[size_t(s / per_gpu)] += double(loads[e]) / plan.logical_count[size_t(layer) * size_t(plan.experts) + e];
  }
  return out;
}

std::vector<double> gpu_loads(std::span<const int> gpu_of, int gpus, std::span<const float> loads) {
  std::vector<double> out(size_t(gpus), 0.0);
  for (size_t e = 0; e < loads.size(); ++e) out[size_t(gpu_of[e])] += double(loads[e]);
  return out;
}

double balancedness(std::span<const double> gpu_loads) {
  const double max = *std::max_element(gpu_loads.begin(), gpu_loads.end());
  const double sum = std::accumulate(gpu_loads.begin(), gpu_loads.end(), 0.0);
  return max > 0 ? sum / double(gpu_loads.size()) / max : 1.0;
}

}  // namespace switchyard

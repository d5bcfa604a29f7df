// NAEE: which experts of a layer can go at the least change of its output (2402.14800; specs/analyses.md A15). Pure; no
// files; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/router_spec.h"

namespace switchyard {

struct NaeeChoice {
  std::vector<ExpertId> dropped;  // ascending
  double loss = 0;
  bool exhaustive = false;  // every set was tried; else the experts went one by one, the cheapest first
  uint64_t tried = 0;       // sets
};

class NaeeSearch {
 public:
  // width: numbers of an expert's output. kUsage in choose() and loss() of routers with a selection bias.
  NaeeSearch(const RouterSpec& spec, int width);

  // One text. logits: [T, E] of the router; outputs: [T, E, width].
  void add_block(std::span<const float> logits, std::span<const float> outputs);

  // Sum over blocks of || F(x) - F_kept(x) ||, Frobenius: the routed part as the router weighs it, against the same with
  // the dropped experts' logits at minus infinity. dropped: [E], 1: gone; k of them must stay.
  double loss(std::span<const uint8_t> dropped) const;

  // The set of E - keep experts of least loss, ties to lower ids. All sets where there are at most most_sets, else greedily.
  // kUsage: keep below the experts of a token, or all; a router whose choice is not by its logits alone. kCancelled.
  Result<NaeeChoice> choose(int keep, uint64_t most_sets, const Task* task = nullptr) const;

 private:
  struct Block {
    std::vector<float> logits, outputs;
    std::vector<double> whole;        // [T, width]
    std::vector<uint8_t> uses;        // [T, E]: the expert is among the chosen
  };
  // What a token's block gives without the dropped: [width].
  void routed(const Block& block, size_t token, std::span<const uint8_t> dropped, std::span<double> out) const;
  double cost(const std::vector<uint8_t>& dropped, double best) const;

  const RouterSpec spec_;
  const size_t experts_, width_;
  std::vector<Block> blocks_;
};

}  // namespace switchyard

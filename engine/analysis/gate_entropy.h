// Routing entropy over many tokens (specs/analyses.md A2): how sharp a router is for one token, how
// spread over all of them, and the mutual information of token and expert, which is the difference.
// Streaming and mergeable; no files. Called by the trace recorder and analyses; no thread owns it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

struct GateEntropyStats {
  uint64_t tokens = 0;
  double mean_top1_prob = 0;      // mean over tokens of max p
  double z_loss = 0;              // mean over tokens of (ln sum e^z)^2
  double mean_entropy = 0;        // nats, mean over tokens of H(p)
  double entropy_of_mean = 0;     // nats, H of the mean p
  double mutual_information = 0;  // their difference: 0 = the router ignores the token
};

class GateEntropy {
 public:
  GateEntropy(int rows, int experts);
  // logits: [tokens, E], raw router output of one routing row; p is the softmax over all of them.
  // A token with a NaN among its logits has no p and is left out; so is one whose mask is 0. mask: [tokens], or empty.
  Result<void> feed(int row, std::span<const float> logits, std::span<const uint8_t> mask = {});
  void merge(const GateEntropy& other);  // of the same shape

  // [E]: sum over tokens of p; A1's balance losses need nothing else of the scores.
  std::span<const double> prob_sum(int row) const { return {prob_sum_.data() + size_t(row) * experts_, size_t(experts_)}; }
  GateEntropyStats stats(int row) const;

 private:
  int rows_, experts_;
  std::vector<double> prob_sum_;     // [rows, E]
  std::vector<double> entropy_sum_, top1_sum_, squared_lse_sum_;  // [rows] each
  std::vector<uint64_t> tokens_;     // [rows]
};

}  // namespace switchyard

// What an edit does: distributions of an edited run against the unedited one on the same ids (specs/analyses.md
// A19), and the overlap of their expert sets (A6, "routing shift"). Natural logarithms, double arithmetic.
// Pure and streaming; no files, no thread owns them. Used by score, compare and the window.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

// -ln softmax(logits)[target]. logits: [V]; target < V.
double negative_log_likelihood(std::span<const float> logits, TokenId target);

// One position: p from the base logits, q from the edited ones, full vocabulary.
struct PositionEffect {
  double kl = 0;                        // sum p ln(p / q)
  double kl_reversed = 0;               // sum q ln(q / p)
  double js = 0;                        // Jensen-Shannon divergence
  double tv = 0;                        // total variation, half the sum of |p - q|
  double nll_base = 0, nll_edited = 0;  // of the target
  bool top1_flip = false;               // the first of the largest differs
};
// base and edited: [V] each, V the same; target < V.
PositionEffect effect_at(std::span<const float> base, std::span<const float> edited, TokenId target);

// Effects of all positions, in the order they came.
class EditEffect {
 public:
  void add(const PositionEffect& position) { positions_.push_back(position); }
  void merge(const EditEffect& other);

  const std::vector<PositionEffect>& positions() const { return positions_; }
  // Means over positions; 0 when there are none.
  double mean(double PositionEffect::*field) const;
  double dnll() const { return mean(&PositionEffect::nll_edited) - mean(&PositionEffect::nll_base); }
  double top1_flip_rate() const;
  double kl_percentile(double percent) const;             // linear interpolation between ranks
  std::vector<size_t> worst_positions(size_t top) const;  // falling KL, then earlier

 private:
  std::vector<PositionEffect> positions_;
};

double perplexity(double mean_nll);  // e^nll

// Overlap of two decisions on the same token, per routing row.
class RoutingShift {
 public:
  explicit RoutingShift(int rows) : rows_(rows) {}
  // Sets of chosen experts of one token, without empty slots, in any order. base must not be empty.
  Result<void> feed(int row, std::span<const ExpertId> base, std::span<const ExpertId> other);
  void merge(const RoutingShift& other);

  int rows() const { return static_cast<int>(rows_.size()); }
  double overlap(int row) const;  // mean |base n other| / |base|; 1: no shift
  double jaccard(int row) const;  // mean |base n other| / |base u other|

 private:
  struct Row {
    uint64_t tokens = 0;
    double overlap = 0, jaccard = 0;
  };
  std::vector<Row> rows_;
};

// Router saturation (A6): how much the first j choices of two recordings of the same tokens have in common. Rows may
// be fed from different threads.
class Saturation {
 public:
  Saturation(int rows, int k) : k_(k), rows_(rows, Row{0, 0, std::vector<uint64_t>(k)}) {}
  // base and other: [tokens, k] each, first choice first, empty slots kNoExpert. Tokens that are empty in the base are left out.
  Result<void> feed(int row, std::span<const ExpertId> base, std::span<const ExpertId> other);

  uint64_t tokens(int row) const { return rows_[row].tokens; }
  double overlap(int row, int j) const;  // mean |first j n first j| / j, 1 <= j <= k
  double jaccard(int row) const;         // mean over tokens, all k

 private:
  struct Row {
    uint64_t tokens = 0;
    double jaccard = 0;
    std::vector<uint64_t> shared;  // [k]: of the first j + 1
  };
  int k_;
  std::vector<Row> rows_;
};

}  // namespace switchyard

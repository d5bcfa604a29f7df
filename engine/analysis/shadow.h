// What another recipe would do with the same router logits: two decisions on one token and one routing row, and their
// difference summed over a text (specs/gating.md, section 2, shadow mode; sets: specs/analyses.md A6). No expert runs.
// Streaming and mergeable; no files, no thread owns them. Used by the session's shadow mode, compare and the window.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/router_tensors.h"
#include "engine/routing/decision.h"
#include "engine/routing/frame.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// One decision, dense over the experts. An expert runs where a slot that is neither null nor dropped holds it.
struct GateDecision {
  std::vector<uint8_t> runs;   // [E] slots that run the expert
  std::vector<float> weights;  // [E] as applied, of the slots that run; expert_scale excluded
  std::vector<float> logits;   // [E] edited: what the scores are made of; -inf cannot be selected
  int executed = 0;            // slots that run
  // Made by distribute(): softmax(logits), whatever the model's own score is; [E], and their entropy in nats.
  std::vector<double> probabilities, log_probabilities;
  double entropy = 0;
  bool distributed = false;

  // ids, weights and kinds: [slots used]; kinds may be empty: all routed. logits: [E].
  void set(std::span<const ExpertId> ids, std::span<const float> weights, std::span<const SlotKind> kinds,
           std::span<const float> logits);
  // What runs, anew; the logits stay.
  void select(std::span<const ExpertId> ids, std::span<const float> weights, std::span<const SlotKind> kinds);
  // As a frame recorded it, weights and kinds captured.
  void select(const RoutingFrame& frame, int row);
  void distribute();
};

// base against other. Sets are those of the experts that run; two empty sets are equal.
struct GateDifference {
  double jaccard = 1;    // |base n other| / |base u other|
  double weight_l1 = 0;  // sum over the union of |w_base - w_other|; the weight of an expert that does not run is 0
  double kl = 0;         // sum p ln(p / q), p and q of softmax(edited logits); infinite where other mutes what base has
  double js = 0;         // Jensen-Shannon divergence of p and q; finite always, at most ln 2
  double extra_experts = 0;  // slots that run: other minus base
  double extra_flops = 0;    // of their experts: other minus base
  bool operator==(const GateDifference&) const = default;
};

// Floating point operations of one token in one expert: two per element of its matrices. Experts from `computed` on
// (identity experts) cost none.
struct ExpertCost {
  double flops = 0;
  int computed = 0;
};
ExpertCost expert_cost(const ModelPlan& plan, int row);

// Not const: makes the distributions where the logits differ and they are not there yet.
GateDifference difference(GateDecision& base, GateDecision& other, const ExpertCost& cost);

// Differences summed per routing row.
class GateShift {
 public:
  GateShift() = default;
  explicit GateShift(const ModelPlan& plan);

  // Returns what it added.
  GateDifference feed(int row, GateDecision& base, GateDecision& other);
  // A token on which both recipes are the same in this row.
  void feed_equal(int row);
  void merge(const GateShift& other);

  int rows() const { return static_cast<int>(rows_.size()); }
  uint64_t tokens(int row) const { return rows_[size_t(row)].tokens; }
  GateDifference mean(int row) const;  // over the tokens of the row; as for equal decisions where there were none
  GateDifference mean() const;         // over all decisions of all rows
  // [E] times the expert ran in other minus times it ran in base.
  std::span<const int64_t> moved(int row) const { return rows_[size_t(row)].moved; }
  // The first row whose sets ever differed; -1: none.
  int first_diverging_row() const;

 private:
  struct Row {
    ExpertCost cost;
    uint64_t tokens = 0, changed = 0;  // changed: the sets differed
    GateDifference sum{.jaccard = 0};
    std::vector<int64_t> moved;
  };
  std::vector<Row> rows_;
};

// Makes decisions from recorded logits by the code that the backends use. One thread at a time; keeps its buffers.
class ShadowRouter {
 public:
  // tensors: read_router_tensors(). The plan must outlive this.
  ShadowRouter(const ModelPlan& plan, std::vector<RouterTensors> tensors);

  // Why decisions of this model, or under this recipe, cannot be made from the logits of one token; empty: they can.
  static std::string unavailable(const ModelPlan& plan);
  static std::string unavailable(const Recipe& recipe);
  // recipe: nullptr for native. The token as a frame recorded it, logits captured; of a scheme that cannot be shown
  // from it (above) the layer's other edits alone hold.
  void decide(int row, const LayerRecipe* recipe, const RoutingFrame& frame, GateDecision& out);
  void decide(int row, const LayerRecipe* recipe, RouterInput token, GateDecision& out);  // row and biases are filled in

  const ModelPlan& plan() const { return plan_; }

 private:
  const ModelPlan& plan_;
  std::vector<RouterTensors> tensors_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_, scratch_;
  std::vector<SlotKind> kinds_;
};

}  // namespace switchyard

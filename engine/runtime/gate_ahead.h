// "Gate reuse" (specs/analyses.md A10, predictor c): what the next router would choose if it read what this one reads,
// which is what an offloading engine can fetch while this layer still runs. For frames with Taps::kPredGate. Engine thread.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/model/checkpoint.h"
#include "engine/model/router_tensors.h"

namespace switchyard {

class GateAhead final : public RouterTap {
 public:
  // Reads the routers into float copies (E * hidden * 4 bytes each). The plan must outlive this.
  static Result<std::unique_ptr<GateAhead>> make(const ModelPlan& plan, const WeightStore& weights);
  static Result<std::unique_ptr<GateAhead>> make(const Checkpoint& checkpoint);  // opens its files

  // Of the request that follows: its frames, and who else sees what routers read, or null.
  void begin(std::span<RoutingFrame> frames, RouterTap* other) { frames_ = frames, other_ = other; }

  // Guesses for the next routing row of the same stack, of another width none: the checkpoint's router as it is, its
  // biases in force, edits and capacities left out. Logits are summed in double. Nothing for product-key routers,
  // whose keys mix the tokens of a pass (RouterSpec::product_key).
  void see(int row, size_t token, std::span<const float> input) override;

 private:
  struct Gate {
    std::vector<float> weight;  // [E, width]; empty: nothing is guessed for this row
    int64_t width = 0;
    RouterTensors biases;
  };
  explicit GateAhead(const ModelPlan& plan) : plan_(plan) {}

  const ModelPlan& plan_;
  std::vector<Gate> gates_;  // [routing rows]
  std::span<RoutingFrame> frames_;
  RouterTap* other_ = nullptr;
  std::vector<float> logits_, scratch_, weights_;
  std::vector<ExpertId> ids_;
  std::vector<SlotKind> kinds_;
  std::vector<std::pair<float, ExpertId>> guess_;  // weight and expert
};

}  // namespace switchyard

// See gate_ahead.h.
#include "engine/runtime/gate_ahead.h"

#include <algorithm>
#include <numeric>

#include "engine/routing/decision.h"

namespace switchyard {

Result<std::unique_ptr<GateAhead>> GateAhead::make(const ModelPlan& plan, const WeightStore& weights) {
  std::unique_ptr<GateAhead> ahead(new GateAhead(plan));
  SY_TRY(const auto biases, read_router_tensors(plan, weights));
  const auto encodes = [&](size_t row) { return plan.moe_layers[row] < plan.encoder_layers; };
  for (size_t row = 0; row < plan.rows.size(); ++row) {
    Gate& gate = ahead->gates_.emplace_back();
    const RoutedSpec& routed = plan.routed(int(row));
    if (row == 0 || encodes(row - 1) != encodes(row) || routed.router.product_key) continue;
    gate.width = routed.router_weight.cols;
    gate.weight.resize(size_t(routed.router_weight.elements()));
    SY_CHECK(weights.read(routed.router_weight, gate.weight.data()));
    if (!biases.empty()) gate.biases = biases[row];
  }
  return ahead;
}

Result<std::unique_ptr<GateAhead>> GateAhead::make(const Checkpoint& checkpoint) {
  SY_TRY(const auto weights, WeightStore::open(checkpoint));
  return make(checkpoint.plan, *weights);
}

void GateAhead::see(int row, size_t token, std::span<const float> input) {
  if (other_) other_->see(row, token, input);
  const int next = row + 1;
  if (next >= int(gates_.size()) || token >= frames_.size() || gates_[size_t(next)].width != int64_t(input.size())) return;
  const Gate& gate = gates_[size_t(next)];
  const RouterSpec& spec = plan_.routed(next).router;
  logits_.resize(size_t(spec.experts));
  for (size_t e = 0; e < logits_.size(); ++e) {
    const double sum = std::inner_product(input.begin(), input.end(), gate.weight.begin() + ptrdiff_t(e * input.size()), 0.0);
    logits_[e] = float(sum) + (gate.biases.logit_bias.empty() ? 0.0f : gate.biases.logit_bias[e]);
  }
  const auto slots = size_t(slots_needed(spec, nullptr));
  scratch_.resize(scratch_needed(spec, nullptr));
  weights_.resize(slots), ids_.resize(slots), kinds_.resize(slots);
  const Decision decision = route(spec, nullptr, {.logits = logits_, .router_bias = gate.biases.logit_bias, .select_bias = gate.biases.select_bias, .row = next, .describe = false},
                                  scratch_, {ids_, weights_, kinds_});
  guess_.clear();
  for (int slot = 0; slot < decision.k_used; ++slot) guess_.emplace_back(weights_[size_t(slot)], ids_[size_t(slot)]);
  std::sort(guess_.begin(), guess_.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  std::transform(guess_.begin(), guess_.end(), ids_.begin(), [](const auto& one) { return one.second; });
  frames_[token].note_guess(next, std::span(ids_).first(guess_.size()));
}

}  // namespace switchyard

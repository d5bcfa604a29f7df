// Schemes of plugins that decide on the device: part of HostWalk. The device's own router decides first, so that a
// token the plugin's code refuses keeps that, and nothing is waited for; what frames need is worked out when the step
// is done.
#include <algorithm>

#include "engine/backend/cuda/host_walk.h"
#include "engine/routing/block.h"
#include "engine/routing/stages.h"

namespace switchyard::cuda {
namespace {

// The scheme's code with the decisions made: what frames say of them is worked out as of any other.
class Told final : public SchemeCode {
 public:
  Told(const RawDecisions& raw, uint64_t position) : raw_(raw), position_(position) {}
  bool edits_logits() const override { return false; }
  bool reads_input() const override { return false; }
  int state_floats() const override { return 0; }
  int slots(int, int) const override { return raw_.slots; }
  bool edit(const CodeCall&, std::span<float>) const override { return false; }
  bool decide(const CodeCall& call, const DecisionSpans& out, int& used) const override {
    const auto token = size_t(call.in.index - position_), first = token * size_t(raw_.slots);
    used = int(raw_.count[token]);
    for (size_t slot = 0; slot < size_t(used); ++slot) {
      out.ids[slot] = ExpertId(raw_.id[first + slot]);
      out.weights[slot] = raw_.weight[first + slot];
      out.kinds[slot] = raw_.flags[first + slot] != 0 ? SlotKind::kForced : SlotKind::kRouted;
    }
    return used > 0;
  }

 private:
  const RawDecisions& raw_;
  uint64_t position_;
};

}  // namespace

Result<bool> HostWalk::decide_on_device(const Place& place, const Router& router) {
  const LayerRecipe* const recipe = place.recipe;
  if (!recipe || !recipe->scheme.code) return false;
  const RouterSpec& spec = place.op.gate.spec;
  const int k = stages::k_in_force(spec, recipe);
  const DevicePlace on_device{.experts = spec.experts,
                              .k = k,
                              .slots = std::min(recipe->scheme.code->slots(spec.experts, k), spec.experts),
                              .layer = recipe->scheme.layer,
                              .row = place.pass * int(model_.rows.size()) + place.op.row,
                              .sequence = task_.sequence,
                              .position = uint64_t(task_.cache->length()),
                              .together = kBlockTokens,
                              .logits = executor_.router_logits(),
                              .bias = place.op.gate.router_bias,
                              .scale = spec.scale,
                              .of_input = spec.apply == ApplyTo::kInput};
  SY_TRY(DeviceScheme* const scheme, schemes_.find(stream_, *recipe, on_device));
  if (!scheme) return false;
  executor_.decide(place.shape, place.op);
  SY_CHECK(scheme->launch(stream_, on_device, task_.tokens, executor_.chosen(place.shape)));
  if (!task_.records) return true;
  if (kept_used_ == kept_.size()) kept_.emplace_back();
  Kept& kept = kept_[kept_used_++];
  kept.spec = &spec, kept.recipe = recipe, kept.router = &router;
  kept.row = on_device.row, kept.frame_row = frame_row(place, place.decision), kept.slots = on_device.slots;
  const size_t logits = place.tokens() * size_t(spec.experts);
  SY_CHECK(kept.raw.reserve(raw_bytes(place.tokens(), kept.slots) / sizeof(float) + 1));
  SY_CHECK(scheme->fetch(stream_, place.tokens(), kept.raw.as<unsigned char>(0).data()));
  SY_CHECK(fetch(kept.logits, executor_.router_logits(), logits, "router logits"));
  return true;
}

void HostWalk::finish(std::span<RoutingFrame> frames) {
  const size_t tokens = task_.tokens.size();
  for (size_t i = 0; i < kept_used_; ++i) {
    const Kept& kept = kept_[i];
    const auto experts = size_t(kept.spec->experts);
    const std::span<float> logits = kept.logits.as(tokens * experts);
    if (!kept.router->router_bias.empty())
      for (size_t j = 0; j < logits.size(); ++j) logits[j] += kept.router->router_bias[j % experts];
    const RawDecisions raw = read_raw(kept.raw.as<unsigned char>(0).data(), tokens, kept.slots);
    LayerRecipe recipe = *kept.recipe;
    recipe.scheme.code = std::make_shared<Told>(raw, uint64_t(task_.cache->length()));
    GateNumbers numbers;
    numbers.logits = logits, numbers.router_bias = kept.router->router_bias;
    numbers.select_bias = kept.router->select_bias;
    gate_.decide(*kept.spec, &recipe,
                 {.ids = task_.tokens,
                  .position = task_.cache->length(),
                  .sequence = task_.sequence,
                  .row = kept.row,
                  .memory = &task_.cache->routers()},
                 numbers);
    records_.add(kept.frame_row, gate_, logits);
  }
  kept_used_ = 0;
  schemes_.tell_refusals();
  records_.write(frames);
}

}  // namespace switchyard::cuda

// A backend without arithmetic for tests of the session: router and vocabulary logits are hashes of the tokens and
// of how they were routed, so that any difference in routing shows in every later token. Real route(), real frames.
#pragma once

#include <atomic>
#include <bit>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/routing/decision.h"

namespace switchyard::test {

inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9E3779B97F4A7C15ull + b + 0x632BE59BD9B4E019ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
inline float hashed_logit(uint64_t hash) {
  return float(hash % 4001) / 500.0f - 4.0f;
}

class HashCache final : public KvCache {
 public:
  explicit HashCache(int capacity) : capacity_(capacity) {}
  int length() const override { return int(states.size()); }
  int capacity() const override { return capacity_; }
  int truncate(int length) override {
    states.resize(std::min<size_t>(length, states.size()));
    return int(states.size());
  }
  std::unique_ptr<KvCache> clone() const override { return std::make_unique<HashCache>(*this); }
  uint64_t bytes() const override { return states.size() * sizeof(uint64_t); }
  std::span<const uint8_t> path() const override { return passes; }
  uint64_t last() const { return states.empty() ? 17 : states.back(); }

  std::vector<uint64_t> states;  // after each token
  std::vector<uint8_t> passes;

 private:
  int capacity_;
};

struct HashBackendControls {
  std::atomic<int> microseconds_per_token{0};
  std::atomic<int> fail_at{-1};  // position whose forward fails
  std::atomic<int> threads{0};
  std::atomic<uint64_t> forwards{0};
};

class HashBackend final : public Backend {
 public:
  HashBackend(const ModelPlan& plan, std::shared_ptr<HashBackendControls> controls)
      : plan_(plan), controls_(std::move(controls)) {}

  BackendInfo info() const override { return {"hash", "", ""}; }
  std::unique_ptr<KvCache> new_cache(int capacity) const override { return std::make_unique<HashCache>(capacity); }
  void set_threads(int threads) override { controls_->threads = threads; }

  Result<void> forward(const ForwardRequest& request) override {
    ++controls_->forwards;
    auto& cache = static_cast<HashCache&>(*request.cache);
    if (cache.length() > 0 && cache.passes != request.recipe->path.passes)
      return fail(ErrorCode::kInternal, "the layer path changed within a sequence.");
    cache.passes = request.recipe->path.passes;
    const std::vector<DecisionRow> rows = decision_rows(plan_, *request.recipe);
    const size_t before = cache.states.size();
    for (size_t t = 0; t < request.tokens.size(); ++t) {
      if (int(before + t) == controls_->fail_at) {
        cache.states.resize(before);
        return fail(ErrorCode::kDevice, "the device is gone", "token " + std::to_string(before + t));
      }
      if (request.task && request.task->cancelled()) {
        cache.states.resize(before);
        return fail(ErrorCode::kCancelled, "stopped");
      }
      if (const int pause = controls_->microseconds_per_token)
        std::this_thread::sleep_for(std::chrono::microseconds(pause));
      uint64_t state = mix(cache.last(), uint64_t(request.tokens[t]));
      for (const DecisionRow& row : rows) state = route_row(request, t, row.row % int(plan_.moe_layers.size()), row.row, state);
      cache.states.push_back(state);
      if (request.rows == LogitRows::kAll) write_logits(cache, request.logits.subspan(t * size_t(plan_.vocab)));
    }
    if (request.rows == LogitRows::kLast) write_logits(cache, request.logits);
    for (RoutingFrame& frame : request.frames)
      if (leaves_rows_out(plan_, *request.recipe)) frame.header().flags |= FrameFlags::kPartial;
    return {};
  }

 private:
  void write_logits(const HashCache& cache, std::span<float> logits) const {
    for (int id = 0; id < plan_.vocab; ++id) logits[size_t(id)] = hashed_logit(mix(cache.last(), 1000 + id));
  }

  uint64_t route_row(const ForwardRequest& request, size_t t, int row, int frame_row, uint64_t state) const {
    const RouterSpec& spec = plan_.routed(row).router;
    const LayerRecipe* recipe = request.recipe->layer(row);
    std::vector<float> logits(spec.experts), scratch(4 * spec.experts);
    for (int e = 0; e < spec.experts; ++e) logits[e] = hashed_logit(mix(state, uint64_t(row_hash(recipe, e))));
    const int slots = slots_needed(spec, recipe);
    std::vector<ExpertId> ids(slots);
    std::vector<float> weights(slots);
    std::vector<SlotKind> kinds(slots);
    const uint64_t index = static_cast<HashCache*>(request.cache)->states.size();
    const RouterInput in{.logits = logits, .token = request.tokens[t], .index = index, .first_index = index, .row = row};
    const Decision decision = route(spec, recipe, in, scratch, {ids, weights, kinds});
    if (!request.frames.empty()) request.frames[t].record(frame_row, decision, ids, weights, kinds, logits);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      float weight = weights[slot];
      if (recipe && !recipe->expert_scale.empty()) weight *= recipe->expert_scale[ids[slot]];
      state = mix(state, mix(ids[slot], std::bit_cast<uint32_t>(weight)));
      if (const uint64_t hash = recipe ? weights_hash(*recipe, ids[slot]) : 0) state = mix(state, hash);
    }
    return state;
  }

  // An expert's logit comes of the row that stands for it.
  static uint64_t row_hash(const LayerRecipe* recipe, int expert) {
    if (!recipe || recipe->router_rows.empty() || recipe->router_rows[expert] == RowSource{}) return uint64_t(expert);
    const RowSource& row = recipe->router_rows[expert];
    uint64_t hash = mix(uint64_t(row.kind), mix(row.expert, std::bit_cast<uint32_t>(row.degrees)));
    if (row.values)
      for (const float value : *row.values) hash = mix(hash, std::bit_cast<uint32_t>(value));
    return hash;
  }
  // And what runs in its place goes into the state; of an expert as it is, nothing.
  static uint64_t weights_hash(const LayerRecipe& recipe, int expert) {
    uint64_t hash = 0;
    for (const ExpertShare& share : recipe.mix(expert)) hash = mix(hash, mix(share.expert, std::bit_cast<uint32_t>(share.weight)));
    for (const int unit : recipe.unit_mask(expert)) hash = mix(hash, uint64_t(unit) + 7);
    return hash;
  }

  const ModelPlan plan_;
  std::shared_ptr<HashBackendControls> controls_;
};

}  // namespace switchyard::test

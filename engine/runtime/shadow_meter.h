// Shadow mode of a session: routes the captured logits of every token under other recipes and keeps count of how far
// they are from what ran. Called by the engine thread; the work is done by a thread of its own, which the engine waits
// for when it falls 64 tokens behind. The logs it publishes are read by any thread.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/analysis/shadow.h"
#include "engine/base/result.h"
#include "engine/runtime/forced_pass.h"
#include "engine/runtime/session.h"

namespace switchyard {

class ShadowMeter {
 public:
  explicit ShadowMeter(const ModelPlan& plan) : plan_(plan) {}
  ~ShadowMeter();

  // All of them or, with an error, none. tensors: asked for when the first recipe comes.
  Result<void> set(std::vector<ShadowRecipe> recipes, const std::function<Result<std::vector<RouterTensors>>()>& tensors);
  bool empty() const { return shadows_.empty(); }
  // Counts from nothing; the next token fed is `first_token`.
  void restart(uint64_t first_token);
  // The next token and the recipe that routed it.
  void feed(std::shared_ptr<const RoutingFrame> frame, std::shared_ptr<const Recipe> base);

  // For snapshots; null: none. at_once: with every token that was fed; else what is there, 30 times a second.
  std::shared_ptr<const std::vector<ShadowState>> state(bool at_once);

 private:
  struct Shadow {
    ShadowState state;
    std::vector<RecipeSpan> spans;
    GateShift totals;
    std::shared_ptr<ShadowLog> log;
    bool never = false;           // cannot be decided from logits: state.unavailable says why
    size_t span = 0;              // in force
    std::vector<uint8_t> equal;   // [rows] the layer's recipe is that of the base
  };
  struct Token {
    std::shared_ptr<const RoutingFrame> frame;
    std::shared_ptr<const Recipe> base;
  };
  void work();
  void catch_up();  // until the worker has nothing left to do
  // The worker, holding state_mutex_.
  void look_at(const RoutingFrame& frame, const std::shared_ptr<const Recipe>& base);
  void decide_base(const RoutingFrame& frame, int row, const LayerRecipe* recipe);
  void compare_recipes(uint64_t token, const std::shared_ptr<const Recipe>& base);

  const ModelPlan& plan_;
  std::mutex state_mutex_;  // guards all down to stale_
  std::unique_ptr<ShadowRouter> router_;
  std::vector<Shadow> shadows_;
  std::shared_ptr<const Recipe> base_;  // that `equal` speaks of
  std::vector<uint8_t> base_needed_;    // [rows] some shadow differs there
  GateDecision base_decision_, decision_;
  bool stale_ = false;

  std::shared_ptr<const std::vector<ShadowState>> published_;
  std::chrono::steady_clock::time_point published_at_;

  std::mutex queue_mutex_;  // guards the next three
  std::deque<Token> queue_;
  bool working_ = false, ending_ = false;
  std::condition_variable wake_, caught_up_;
  std::thread worker_;  // started with the first recipe
};

}  // namespace switchyard

#include "engine/runtime/shadow_meter.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace switchyard {
namespace {

constexpr size_t kMostWaiting = 64;  // tokens

Result<void> check(const ShadowRecipe& shadow, const ModelPlan& plan) {
  Recipe recipe;
  std::vector<EditCommand> ordered = shadow.script;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.at_token.value_or(0) < b.at_token.value_or(0); });
  for (const EditCommand& command : ordered) {
    if (auto fits = validate(command.edit, plan, recipe); !fits)
      return fail(fits.error().code, fits.error().what, fmt::format("shadow recipe {}: {}", shadow.name, describe(command.edit)),
                  fits.error().hint);
    apply(command.edit, plan, recipe);
  }
  return {};
}

}  // namespace

ShadowMeter::~ShadowMeter() {
  {
    const std::scoped_lock lock(queue_mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  if (worker_.joinable()) worker_.join();
}

void ShadowMeter::work() {
  std::unique_lock lock(queue_mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return !queue_.empty() || ending_; });
    if (ending_) return;
    const Token token = std::move(queue_.front());
    queue_.pop_front();
    working_ = true;
    lock.unlock();
    {
      const std::scoped_lock state(state_mutex_);
      look_at(*token.frame, token.base);
    }
    lock.lock();
    working_ = false;
    caught_up_.notify_one();
  }
}

void ShadowMeter::catch_up() {
  std::unique_lock lock(queue_mutex_);
  caught_up_.wait(lock, [&] { return queue_.empty() && !working_; });
}

void ShadowMeter::feed(std::shared_ptr<const RoutingFrame> frame, std::shared_ptr<const Recipe> base) {
  if (shadows_.empty()) return;
  {
    std::unique_lock lock(queue_mutex_);
    caught_up_.wait(lock, [&] { return queue_.size() < kMostWaiting; });
    queue_.push_back({std::move(frame), std::move(base)});
  }
  wake_.notify_one();
}

Result<void> ShadowMeter::set(std::vector<ShadowRecipe> recipes,
                              const std::function<Result<std::vector<RouterTensors>>()>& tensors) {
  if (recipes.size() > kMostShadows)
    return fail(ErrorCode::kUsage, fmt::format("{} shadow recipes, at most {} are compared at once", recipes.size(), kMostShadows),
                {}, "Remove one first.");
  for (const ShadowRecipe& recipe : recipes) SY_CHECK(check(recipe, plan_));
  if (!router_ && !recipes.empty()) {
    SY_TRY(std::vector<RouterTensors> own, tensors());
    router_ = std::make_unique<ShadowRouter>(plan_, std::move(own));
    worker_ = std::thread([this] { work(); });
  }
  catch_up();
  shadows_.clear();
  for (ShadowRecipe& recipe : recipes) {
    Shadow shadow;
    shadow.spans = recipe_spans(recipe.script, plan_);
    shadow.state.name = std::move(recipe.name);
    shadow.state.script = std::move(recipe.script);
    shadows_.push_back(std::move(shadow));
  }
  restart(0);
  return {};
}

void ShadowMeter::restart(uint64_t first_token) {
  catch_up();
  for (Shadow& shadow : shadows_) {
    shadow.totals = GateShift(plan_);
    shadow.log = std::make_shared<ShadowLog>(first_token);
    shadow.state.tokens = shadow.log;
    shadow.state.first_token = shadow.state.next_token = first_token;
    shadow.state.last.clear();
    shadow.state.unavailable = ShadowRouter::unavailable(plan_);
    for (const RecipeSpan& span : shadow.spans)
      if (shadow.state.unavailable.empty()) shadow.state.unavailable = ShadowRouter::unavailable(*span.recipe);
    shadow.never = !shadow.state.unavailable.empty();
    shadow.span = 0;
  }
  base_.reset();
  stale_ = true;
  published_.reset();
}

// Where a layer's recipe is the same on both sides nothing needs to be routed.
void ShadowMeter::compare_recipes(uint64_t token, const std::shared_ptr<const Recipe>& base) {
  bool changed = base_ != base;
  for (Shadow& shadow : shadows_)
    while (shadow.span + 1 < shadow.spans.size() && shadow.spans[shadow.span + 1].first_token <= token)
      ++shadow.span, changed = true;
  if (!changed) return;
  base_ = base;
  const int rows = int(plan_.moe_layers.size());
  base_needed_.assign(size_t(rows), 0);
  for (Shadow& shadow : shadows_) {
    shadow.equal.assign(size_t(rows), 0);
    for (int row = 0; row < rows; ++row) {
      const LayerRecipe *ours = shadow.spans[shadow.span].recipe->layer(row), *theirs = base->layer(row);
      shadow.equal[size_t(row)] = ours == theirs || (ours && theirs && *ours == *theirs);
      if (!shadow.equal[size_t(row)] && !shadow.never) base_needed_[size_t(row)] = 1;
    }
  }
}

// What ran, as the frame has it; only where edits moved the logits are they made again.
void ShadowMeter::decide_base(const RoutingFrame& frame, int row, const LayerRecipe* recipe) {
  if (recipe || (frame.header().flags & FrameFlags::kNan)) {
    router_->decide(row, recipe, frame, base_decision_);
    return base_decision_.select(frame, row);
  }
  const size_t used = frame.layer(row).k_used, experts = size_t(plan_.routed(row).router.experts);
  base_decision_.set(frame.ids(row).first(used), frame.weights(row).first(used), frame.kinds(row).first(used),
                     frame.logits(row).first(experts));
}

void ShadowMeter::look_at(const RoutingFrame& frame, const std::shared_ptr<const Recipe>& base) {
  const int rows = int(plan_.moe_layers.size());
  const uint64_t token = frame.header().token_index;
  // The logits of other recipes are those of the model's own router rows.
  const bool own_rows = std::all_of(base->layers.begin(), base->layers.end(),
                                    [](const LayerRecipe& layer) { return layer.router_rows.empty(); });
  const bool captured = frame.header().capture >= CaptureLevel::kLogits && own_rows;
  const char* why_not = own_rows ? "router logits are not captured: set the capture level to logits"
                                 : "the run's own router rows are replaced: what others would have read is not known";
  stale_ = true;
  if (captured) compare_recipes(token, base);
  for (Shadow& shadow : shadows_) {
    if (!shadow.never) shadow.state.unavailable = captured ? "" : why_not;
    shadow.state.next_token = token + 1;
    shadow.state.last.assign(size_t(rows), {});
  }
  std::array<GateDifference, kMostShadows> sums{};
  int passed = 0;
  for (int row = 0; captured && row < rows; ++row) {
    if (!frame.passed(row)) continue;
    ++passed;
    if (base_needed_[size_t(row)]) decide_base(frame, row, base->layer(row));
    for (size_t i = 0; i < shadows_.size(); ++i) {
      Shadow& shadow = shadows_[i];
      if (shadow.never) continue;
      if (shadow.equal[size_t(row)]) {
        shadow.totals.feed_equal(row);
        continue;
      }
      router_->decide(row, shadow.spans[shadow.span].recipe->layer(row), frame, decision_);
      const GateDifference one = shadow.totals.feed(row, base_decision_, decision_);
      shadow.state.last[size_t(row)] = one;
      sums[i].jaccard += one.jaccard - 1;  // beside a start of 1: the sum of what is lost
      sums[i].weight_l1 += one.weight_l1;
      sums[i].kl += one.kl;
      sums[i].js += one.js;
    }
  }
  const double n = std::max(1, passed);
  if (!captured) sums.fill({.jaccard = NAN, .weight_l1 = NAN, .kl = NAN, .js = NAN});
  for (size_t i = 0; i < shadows_.size(); ++i)
    if (!shadows_[i].never) shadows_[i].log->append({float(1 + (sums[i].jaccard - 1) / n), float(sums[i].weight_l1 / n), float(sums[i].kl / n),
                             float(sums[i].js / n)});
}

std::shared_ptr<const std::vector<ShadowState>> ShadowMeter::state(bool at_once) {
  constexpr auto kInterval = std::chrono::milliseconds(33);
  const auto now = std::chrono::steady_clock::now();
  if (shadows_.empty()) return nullptr;
  if (at_once) catch_up();
  const std::scoped_lock lock(state_mutex_);
  if (published_ && (!stale_ || (!at_once && now - published_at_ < kInterval))) return published_;
  published_at_ = now;
  stale_ = false;
  auto out = std::make_shared<std::vector<ShadowState>>();
  for (Shadow& shadow : shadows_) {
    out->push_back(shadow.state);
    out->back().totals = std::make_shared<const GateShift>(shadow.totals);
  }
  return published_ = std::move(out);
}

}  // namespace switchyard

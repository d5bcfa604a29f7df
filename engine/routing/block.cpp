// See block.h.
#include "engine/routing/block.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/routing/capacity.h"
#include "engine/routing/scheme_stages.h"

namespace switchyard {
namespace {

using namespace stages;

// One batch-coupled scheme at work on a block.
class Settling {
 public:
  Settling(const RouterSpec& spec, const LayerRecipe& recipe, const DecisionBlock& block, BlockScratch& scratch)
      : spec_(spec), stages_(recipe.scheme.stages), block_(block), scratch_(scratch), experts_(spec.experts),
        tokens_(block.decisions.size()) {}

  void run() {
    for (Decision& decision : block_.decisions) decision.k_used = 0;
    switch (stages_.selector) {
      case Selector::kExpertChoice: choose_tokens(); break;
      case Selector::kSwitch: choose_with_capacity(); break;
      case Selector::kBalanced: choose_balanced(); break;
      default: break;
    }
    for (size_t token = 0; token < tokens_; ++token) finish(token);
  }

 private:
  std::span<const float> edited(size_t token) const { return block_.edited.subspan(token * 2 * experts_, experts_); }
  bool native(size_t token, ExpertId e) const { return block_.edited[token * 2 * experts_ + experts_ + e] != 0; }
  float& score(size_t token, size_t expert) { return scratch_.scores[token * experts_ + expert]; }

  void add(size_t token, ExpertId expert, float weight, SlotKind kind = SlotKind::kRouted) {
    const size_t at = token * block_.slots + block_.decisions[token].k_used++;
    block_.ids[at] = expert;
    block_.weights[at] = weight * spec_.scale;
    block_.kinds[at] = kind;
  }

  // Softmax over the experts of each token, or over the tokens of each expert; -inf gives 0.
  void fill_scores(ChoiceAxis axis) {
    scratch_.scores.resize(tokens_ * experts_);
    if (axis == ChoiceAxis::kExperts) {
      for (size_t token = 0; token < tokens_; ++token)
        score_by_scheme({}, edited(token), std::span(scratch_.scores).subspan(token * experts_, experts_));
      return;
    }
    for (size_t e = 0; e < experts_; ++e) {
      float max = kNever;
      for (size_t token = 0; token < tokens_; ++token) max = std::max(max, edited(token)[e]);
      double sum = 0;
      for (size_t token = 0; token < tokens_; ++token)
        sum += score(token, e) = max == kNever ? 0.0f : std::exp(edited(token)[e] - max);
      for (size_t token = 0; token < tokens_; ++token) score(token, e) /= sum > 0 ? static_cast<float>(sum) : 1.0f;
    }
  }

  void choose_tokens() {
    fill_scores(stages_.axis);
    const auto room = size_t(choice_capacity(stages_.capacity_factor, int64_t(tokens_), int64_t(experts_)));
    auto& order = scratch_.places;
    for (size_t e = 0; e < experts_; ++e) {
      order.clear();
      for (size_t token = 0; token < tokens_; ++token)
        if (edited(token)[e] != kNever) order.push_back(int(token));
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return score(a, e) > score(b, e); });
      for (size_t i = 0; i < std::min(room, order.size()); ++i) add(order[i], ExpertId(e), score(order[i], e));
    }
    for (size_t token = 0; token < tokens_; ++token) sort_slots(token);
  }

  // Falling weight, then lower id; all kinds are kRouted here.
  void sort_slots(size_t token) {
    const auto ids = block_.ids.subspan(token * block_.slots, block_.decisions[token].k_used);
    const auto weights = block_.weights.subspan(token * block_.slots, ids.size());
    for (size_t i = 1; i < ids.size(); ++i)
      for (size_t at = i; at > 0 && weights[at] > weights[at - 1]; --at) {
        std::swap(ids[at], ids[at - 1]);
        std::swap(weights[at], weights[at - 1]);
      }
  }

  void choose_with_capacity() {
    fill_scores(ChoiceAxis::kExperts);
    const int64_t room = switch_capacity(stages_.capacity_factor, int64_t(tokens_), int64_t(experts_));
    scratch_.counts.assign(experts_, 0);
    for (size_t token = 0; token < tokens_; ++token) {
      const std::span<const float> z = edited(token);
      size_t best = experts_, open = experts_;
      for (size_t e = 0; e < experts_; ++e) {
        if (z[e] == kNever) continue;
        if (best == experts_ || z[e] > z[best]) best = e;
        if (scratch_.counts[e] < room && (open == experts_ || z[e] > z[open])) open = e;
      }
      if (best == experts_) continue;
      const bool fits = scratch_.counts[best] < room;
      if (!fits && (stages_.overflow == Overflow::kDrop || open == experts_)) {
        add(token, ExpertId(best), 0, SlotKind::kDropped);
        continue;
      }
      const size_t chosen = fits ? best : open;
      ++scratch_.counts[chosen];
      add(token, ExpertId(chosen), score(token, chosen));
    }
  }

  void choose_balanced() {
    std::vector<ExpertId> ids(tokens_);
    assign_balanced(block_.edited, int(tokens_), int(experts_), int(2 * experts_), ids, scratch_);
    for (size_t token = 0; token < tokens_; ++token)
      if (ids[token] != kNoExpert) add(token, ids[token], sigmoid(edited(token)[ids[token]]));
  }

  void finish(size_t token) {
    Decision& decision = block_.decisions[token];
    const float native_lse = decision.stats.lse;
    const auto ids = block_.ids.subspan(token * block_.slots, decision.k_used);
    decision.stats = stats_of(softmax_sums(edited(token), nullptr), edited(token), ids);
    decision.stats.lse = native_lse;
    decision.changed = 0;
    for (const ExpertId id : ids) decision.changed += !native(token, id);
  }

  const RouterSpec& spec_;
  const Stages& stages_;
  const DecisionBlock& block_;
  BlockScratch& scratch_;
  const size_t experts_, tokens_;
};

}  // namespace

void settle_block(const RouterSpec& spec, const LayerRecipe* recipe, const DecisionBlock& block, BlockScratch& scratch) {
  if (recipe && replaces_router(recipe->scheme)) {
    if (batch_coupled(recipe->scheme) && block.decisions.size() > 1) Settling(spec, *recipe, block, scratch).run();
  } else {
    limit_to_capacity(spec, recipe, block, scratch.counts);
  }
}

int64_t switch_capacity(double factor, int64_t tokens, int64_t experts) {
  return static_cast<int64_t>(factor * double((tokens + experts - 1) / experts));
}

int64_t choice_capacity(double c, int64_t tokens, int64_t experts) {
  return std::min(tokens, std::max<int64_t>(1, static_cast<int64_t>(double(tokens) * c / double(experts))));
}

void assign_balanced(std::span<const float> affinity, int tokens, int experts, int stride, std::span<ExpertId> ids,
                     BlockScratch& scratch) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  const auto a = [&](int token, int expert) { return double(affinity[size_t(token) * stride + expert]); };
  const auto allowed = [&](int token, int expert) { return affinity[size_t(token) * stride + expert] != kNever; };
  std::fill(ids.begin(), ids.end(), kNoExpert);
  int alive = 0;
  for (int e = 0; e < experts; ++e) {
    bool any = false;
    for (int t = 0; t < tokens && !any; ++t) any = allowed(t, e);
    alive += any;
  }
  if (alive == 0) return;
  const uint32_t room = uint32_t((tokens + alive - 1) / alive);
  // The graph's nodes are the experts. An edge e -> f moves the token of e that loses least by it; `mover` says which.
  // Dijkstra runs on costs made non-negative by the potentials.
  scratch.counts.assign(experts, 0);
  scratch.costs.assign(size_t(experts) * (experts + 2), 0);
  scratch.places.assign(size_t(experts) * (experts + 2), -1);
  const std::span<double> potential = std::span(scratch.costs).first(experts), distance = std::span(scratch.costs).subspan(experts, experts),
                          loss = std::span(scratch.costs).subspan(2 * size_t(experts));
  const std::span<int> from = std::span(scratch.places).first(experts), done = std::span(scratch.places).subspan(experts, experts),
                       mover = std::span(scratch.places).subspan(2 * size_t(experts));
  const auto edge = [&](int e, int f) { return size_t(e) * experts + f; };
  std::fill(loss.begin(), loss.end(), kFar);
  const auto refresh = [&](int e) {  // the edges that leave e
    for (int f = 0; f < experts; ++f) loss[edge(e, f)] = kFar;
    for (int t = 0; t < tokens; ++t) {
      if (ids[t] != e) continue;
      for (int f = 0; f < experts; ++f)
        if (const double cost = a(t, e) - a(t, f); f != e && allowed(t, f) && cost < loss[edge(e, f)]) {
          loss[edge(e, f)] = cost;
          mover[edge(e, f)] = t;
        }
    }
  };
  for (int t = 0; t < tokens; ++t) {
    double offset = kFar;
    for (int e = 0; e < experts; ++e)
      if (allowed(t, e)) offset = std::min(offset, -a(t, e) - potential[e]);
    if (offset == kFar) continue;
    for (int e = 0; e < experts; ++e) {
      distance[e] = allowed(t, e) ? -a(t, e) - potential[e] - offset : kFar;
      from[e] = -1;
      done[e] = 0;
    }
    for (int turn = 0; turn < experts; ++turn) {
      int next = -1;
      for (int e = 0; e < experts; ++e)
        if (!done[e] && distance[e] < kFar && (next < 0 || distance[e] < distance[next])) next = e;
      if (next < 0) break;
      done[next] = 1;
      for (int f = 0; f < experts; ++f) {
        if (done[f] || loss[edge(next, f)] == kFar) continue;
        const double through = distance[next] + std::max(0.0, loss[edge(next, f)] + potential[next] - potential[f]);
        if (through < distance[f]) {
          distance[f] = through;
          from[f] = next;
        }
      }
    }
    int end = -1;
    for (int e = 0; e < experts; ++e)
      if (scratch.counts[e] < room && distance[e] < kFar &&
          (end < 0 || distance[e] + potential[e] < distance[end] + potential[end]))
        end = e;
    if (end < 0) continue;
    for (int e = 0; e < experts; ++e)
      if (distance[e] < kFar) potential[e] += distance[e];
    ++scratch.counts[end];
    int at = end;
    for (; from[at] >= 0; at = from[at]) ids[mover[edge(from[at], at)]] = ExpertId(at);
    ids[t] = ExpertId(at);
    // Tokens moved along the path; every expert on it has other tokens now.
    for (int e = end; e >= 0; e = from[e]) refresh(e);
  }
}

}  // namespace switchyard

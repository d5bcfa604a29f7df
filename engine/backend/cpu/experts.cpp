// The feed-forward half of a layer: router, route(), frames, then the chosen experts (or the one dense
// block). See executor.h.
//
// Every token's expert outputs are added to the residual in ascending expert order, in prefill and in
// decode alike, so both give the same bits.
#include <algorithm>
#include <array>

#include "engine/backend/cpu/executor.h"
#include "engine/routing/decision.h"

namespace switchyard::cpu {
namespace {

constexpr int64_t kRowMultiple = 8;

bool executed(SlotKind kind) {
  return kind == SlotKind::kRouted || kind == SlotKind::kForced;
}

}  // namespace

void Executor::feed_forward(int layer) {
  const Layer& at = model_.layers[layer];
  normalise(at.ffn_norm, hidden_, normed_);
  if (at.ffn.row >= 0) {
    route_tokens(at.ffn);
    sort_slots(at.ffn);
  } else {
    take_all_tokens();
  }
  gate_up(at.ffn);
  down(at.ffn);
}

void Executor::route_tokens(const FeedForward& ffn) {
  const std::array product{Product{&ffn.router_weight, rows_of(normed_in_, router_out_, false)}};
  multiply(product);
  const LayerRecipe* recipe = chunk_->recipe->layer(ffn.row);
  slots_ = slots_needed(ffn.router, recipe);
  const size_t slots = size_t(count_) * slots_;
  decisions_.resize(count_);
  ids_.resize(slots);
  weights_.resize(slots);
  kinds_.resize(slots);
  // A decision takes about as long as reading some bytes per expert.
  for_tokens(int64_t(ffn.router.experts) * 512,
             [&](int token, int worker) { route_token(ffn, recipe, token, workers_[worker]); });
}

void Executor::route_token(const FeedForward& ffn, const LayerRecipe* recipe, int token, WorkerSpace& space) {
  const size_t experts = ffn.router.experts, first = size_t(token) * slots_;
  const std::span<float> logits(router_logits_[token], experts);
  for (size_t e = 0; e < ffn.router_bias.size(); ++e) logits[e] += ffn.router_bias[e];
  const DecisionSpans out{std::span(ids_).subspan(first, slots_), std::span(weights_).subspan(first, slots_),
                          std::span(kinds_).subspan(first, slots_)};
  decisions_[token] =
      route(ffn.router, recipe, logits, ffn.router_bias, ffn.select_bias, {space.routing.data(), 4 * experts}, out);
  if (!chunk_->frames.empty())
    chunk_->frames[token].record(ffn.row, decisions_[token], out.ids, out.weights, out.kinds, logits);
}

// Counting sort of the executed slots by expert; within one expert by token.
void Executor::sort_slots(const FeedForward& ffn) {
  const LayerRecipe* recipe = chunk_->recipe->layer(ffn.row);
  const std::vector<float>* expert_scale = recipe && !recipe->expert_scale.empty() ? &recipe->expert_scale : nullptr;
  const bool weigh_input = ffn.router.apply == ApplyTo::kInput;

  next_.assign(ffn.experts.size() + 1, 0);
  const auto each = [&](auto&& visit) {
    for (int token = 0; token < count_; ++token)
      for (int slot = 0; slot < decisions_[token].k_used; ++slot)
        if (const size_t at = size_t(token) * slots_ + slot; executed(kinds_[at])) visit(token, at);
  };
  each([&](int, size_t at) { ++next_[ids_[at] + 1]; });
  groups_.clear();
  for (size_t e = 0; e < ffn.experts.size(); ++e) {
    if (next_[e + 1] > 0) groups_.push_back({int(e), next_[e], next_[e + 1]});
    next_[e + 1] += next_[e];
  }
  size_slots(next_.back());
  each([&](int token, size_t at) {
    const int slot = next_[ids_[at]]++;
    const float scale = expert_scale ? (*expert_scale)[ids_[at]] : 1.0f;
    slot_weight_[slot] = weigh_input ? scale : weights_[at] * scale;
    slot_input_[slot] = weigh_input ? weights_[at] : 1.0f;
    slot_in_[slot] = normed_[token];
    slot_hidden_[slot] = hidden_[token];
  });
}

void Executor::take_all_tokens() {
  size_slots(count_);
  groups_.assign(1, {0, 0, count_});
  for (int token = 0; token < count_; ++token) {
    slot_weight_[token] = slot_input_[token] = 1.0f;
    slot_in_[token] = normed_[token];
    slot_hidden_[token] = hidden_[token];
  }
}

void Executor::size_slots(int slots) {
  slot_weight_.resize(slots);
  slot_input_.resize(slots);
  slot_in_.resize(slots);
  slot_hidden_.resize(slots);
}

// Rows [begin, end) of every group's gate and up matrices, then the activation, in one go.
void Executor::gate_up(const FeedForward& ffn) {
  const int slots = static_cast<int>(slot_in_.size());
  gate_.shape(slots, ffn.width);
  up_.shape(slots, ffn.width);
  slot_gate_.resize(slots);
  slot_up_.resize(slots);
  slot_act_.resize(slots);
  for (int slot = 0; slot < slots; ++slot) {
    slot_act_[slot] = slot_gate_[slot] = gate_[slot];
    slot_up_[slot] = up_[slot];
  }
  const auto some = [&](const Group& group, int64_t begin, int64_t end) {
    const Glu& expert = ffn.experts[group.expert];
    const float* const* in = slot_in_.data() + group.first;
    kernels_.dot_rows(expert.gate, begin, end, {group.count, in, slot_gate_.data() + group.first, nullptr});
    kernels_.dot_rows(expert.up, begin, end, {group.count, in, slot_up_.data() + group.first, nullptr});
    for (int slot = group.first; slot < group.first + group.count; ++slot)
      kernels_.glu(ffn.unit, gate_[slot] + begin, up_[slot] + begin, slot_input_[slot], gate_[slot] + begin,
                   end - begin);
  };
  // Rows of the groups end to end; experts have unequal numbers of tokens, so the parts are finer there.
  const int64_t rows = int64_t(groups_.size()) * ffn.width;
  const int even = parts_for(expert_bytes(ffn) * 2), parts = even == 1 || count_ == 1 ? even : even * 8;
  pool_.run(parts, [&](int part, int) {
    const RowRange own = split_rows(rows, parts, part, kRowMultiple);
    for (int64_t row = own.begin; row < own.end;) {
      const int64_t begin = row % ffn.width, end = std::min<int64_t>(ffn.width, begin + own.end - row);
      some(groups_[row / ffn.width], begin, end);
      row += end - begin;
    }
  });
}

void Executor::down(const FeedForward& ffn) {
  const int parts = parts_for(expert_bytes(ffn));
  pool_.run(parts, [&](int part, int) {
    const RowRange own = split_rows(model_.hidden, parts, part, kRowMultiple);
    for (const Group& group : groups_) {
      const TokenRows tokens{group.count, slot_act_.data() + group.first, slot_hidden_.data() + group.first,
                             slot_weight_.data() + group.first};
      kernels_.dot_rows(ffn.experts[group.expert].down, own.begin, own.end, tokens);
    }
  });
}

// Bytes of work in one matrix of every group, counted as multiply() does.
int64_t Executor::expert_bytes(const FeedForward& ffn) const {
  int64_t bytes = 0;
  for (const Group& group : groups_) {
    const Matrix& down = ffn.experts[group.expert].down;
    bytes += down.rows * down.cols * stored_bytes(down.type) * ((group.count + 1) / 2);
  }
  return bytes;
}

}  // namespace switchyard::cpu

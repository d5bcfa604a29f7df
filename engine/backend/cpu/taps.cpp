// Norms of what experts gave and cosines of the residual stream, for frames that ask for them (Taps in frame.h). Each
// expert's output is made a second time, apart, so that the run itself is bit for bit what it is without taps.
#include <algorithm>
#include <cmath>

#include "engine/backend/cpu/feed_forward.h"

namespace switchyard::cpu {
namespace {


float norm_of(const float* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(y[i]) * y[i];
  return static_cast<float>(std::sqrt(sum));
}

}  // namespace

// sum: before anything is added to it.
void FeedForwardRun::keep_residual(const Step& step, const FeedForward& spec, const Sum& sum) {
  const int64_t hidden = width_ = spec.router_weight.cols;
  residual_.shape(step.count, hidden);
  routed_.shape(step.count, hidden);
  for (int token = 0; token < step.count; ++token) {
    std::copy_n(sum.rows[token], hidden, residual_[token]);
    std::fill_n(routed_[token], hidden, 0.0f);
  }
}

// y: what the expert gave; weight: what it is multiplied by on its way into the sum.
void FeedForwardRun::measure_slot(const Step& step, int row, int token, ExpertId id, const float* y, float weight) {
  step.chunk->frames[token].note_out_norm(row, id, norm_of(y, width_));
  for (int64_t i = 0; i < width_; ++i) routed_[token][i] += weight * y[i];
}

void FeedForwardRun::measure(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum) {
  const int64_t hidden = width_;
  const LayerRecipe* recipe = step.chunk->recipe->layer(spec.row);
  const int row = decision_row(step.chunk->frames[0].header().moe_layers, spec.row, recipe, step.pass, pass_);
  for (const Group& group : groups_) {
    if (group.id == kNoExpert) continue;
    shape_rows(group.count, hidden, tapped_, tapped_rows_);
    const TokenRows tokens{group.count, slot_act_.data() + group.first, tapped_rows_.data(), nullptr};
    const int parts = step.parts_for(stored_size(group.expert->down) * ((group.count + 1) / 2));
    step.make_room(group.expert->down.type, group.count, group.expert->down.cols);
    step.pool.run(parts, [&](int part, int worker) {
      const RowRange own = split_rows(hidden, parts, part, kRowMultiple);
      step.dot_rows(group.expert->down, own.begin, own.end, tokens, worker);
      if (group.down_part) group.down_part->add_rows(step.kernels, own.begin, own.end, tapped_rows_.data());
    });
    for (int i = 0; i < group.count; ++i) {
      const std::vector<float>& bias = group.expert->down_bias;
      for (size_t d = 0; d < bias.size(); ++d) tapped_[i][d] += bias[d];
      measure_slot(step, row, slot_token_[size_t(group.first + i)], group.id, tapped_[i], slot_weight_[size_t(group.first + i)]);
    }
  }
  // Experts that no group runs: identities and other kinds.
  const bool weigh_input = spec.router.apply == ApplyTo::kInput;
  shape_rows(1, hidden, tapped_, tapped_rows_);
  for (int token = 0; token < step.count; ++token) {
    for (int slot = 0; slot < decisions_[token].k_used; ++slot) {
      const size_t at = size_t(token) * slots_per_token_ + slot;
      if (!executed(kinds_[at]) || runs_here(spec, recipe, ids_[at])) continue;
      std::fill_n(tapped_[0], hidden, 0.0f);
      const float one = 1, scale = (recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[ids_[at]] : 1.0f) * sum.factor;
      float* const to = tapped_[0];
      add_at_once(step, spec, recipe, ids_[at], 0, 1, weigh_input ? weights_[at] : 1.0f, in[token], {&to, &one, 1});
      measure_slot(step, row, token, ids_[at], to, weigh_input ? scale : weights_[at] * scale);
    }
    if (pass_ > 0 || (recipe && runs_in_passes(recipe->scheme))) continue;
    double before = 0, after = 0, both = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      const double x = residual_[token][i], y = x + routed_[token][i];
      before += x * x, after += y * y, both += x * y;
    }
    if (before > 0 && after > 0) step.chunk->frames[token].note_block_cos(row, static_cast<float>(both / std::sqrt(before * after)));
  }
}

}  // namespace switchyard::cpu

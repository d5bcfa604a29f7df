// Execution of the gathered slots. See feed_forward.h.
#include "engine/backend/cpu/feed_forward.h"

#include <algorithm>

namespace switchyard::cpu {
namespace {

constexpr int64_t kRowMultiple = 8;

// x = scale * x + bias for elements [begin, end).
void scale_and_shift(float* x, float scale, const std::vector<float>& bias, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) x[i] = x[i] * scale + (bias.empty() ? 0.0f : bias[i]);
}

}  // namespace

void FeedForwardRun::run(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum, int pass) {
  pass_ = pass;
  groups_.clear();
  size_slots(0);
  const uint8_t taps = spec.row < 0 || step.chunk->frames.empty() ? 0 : step.chunk->frames[0].header().taps;
  if (taps != 0) keep_residual(step, spec, sum);
  step.add_bias(spec.output_bias, sum);
  if (spec.row >= 0) {
    route_tokens(step, spec, in);
    gather(step, spec, in, sum);
  }
  if (spec.shared) gather_shared(step, spec, in, sum);
  if (groups_.empty()) {
    if (taps != 0) measure(step, spec, in, sum);
    return;
  }
  gate_up(step);
  if (const LayerRecipe* recipe = spec.row < 0 ? nullptr : step.chunk->recipe->layer(spec.row); recipe && cuts_experts(recipe->scheme))
    cut_experts(step, spec, *recipe, in);
  if (step.chunk->units) show_units(step, spec);
  down(step, groups_.front().expert->down.rows);
  if (taps != 0) measure(step, spec, in, sum);
}

// Rows of the groups' gate and up matrices, end to end, then the activation, in one go.
void FeedForwardRun::gate_up(const Step& step) {
  const int slots = static_cast<int>(slot_in_.size());
  int64_t width = 0;
  for (const Group& group : groups_) width = std::max<int64_t>(width, group.form->width);
  shape_rows(slots, width, gate_, slot_gate_);
  shape_rows(slots, width, up_, slot_up_);
  slot_act_.assign(slot_gate_.begin(), slot_gate_.end());

  // Experts have unequal numbers of tokens, so the parts of a prompt are finer.
  const int64_t rows = groups_.back().row + groups_.back().form->width;
  const int even = step.parts_for(down_bytes() * 2), parts = even == 1 || step.count == 1 ? even : even * 8;
  step.pool.run(parts, [&](int part, int) {
    const RowRange own = split_rows(rows, parts, part, kRowMultiple);
    const auto after = [](int64_t row, const Group& group) { return row < group.row; };
    auto group = std::upper_bound(groups_.begin(), groups_.end(), own.begin, after) - 1;
    for (int64_t row = own.begin; row < own.end; ++group) {
      const int64_t begin = row - group->row, end = std::min<int64_t>(group->form->width, own.end - group->row);
      gate_up_rows(step, *group, begin, end);
      row += end - begin;
    }
  });
}

void FeedForwardRun::gate_up_rows(const Step& step, const Group& group, int64_t begin, int64_t end) {
  const float* const* in = slot_in_.data() + group.first;
  if (group.form->kind != FfnKind::kMlp)
    step.kernels.dot_rows(group.expert->gate, begin, end, {group.count, in, slot_gate_.data() + group.first, nullptr});
  step.kernels.dot_rows(group.expert->up, begin, end, {group.count, in, slot_up_.data() + group.first, nullptr});
  for (int slot = group.first; slot < group.first + group.count; ++slot) activate(step, group, slot, begin, end);
}

// The activation of one slot into its gate row. The input's scale commutes with the products.
void FeedForwardRun::activate(const Step& step, const Group& group, int slot, int64_t begin, int64_t end) {
  const Expert& expert = *group.expert;
  const FfnForm& form = *group.form;
  float *gate = gate_[slot], *up = up_[slot], scale = slot_input_[slot];
  if (form.kind == FfnKind::kGluOss || !expert.gate_bias.empty() || !expert.up_bias.empty()) {
    if (form.kind != FfnKind::kMlp) scale_and_shift(gate, scale, expert.gate_bias, begin, end);
    scale_and_shift(up, scale, expert.up_bias, begin, end);
    scale = 1;
  }
  const int64_t n = end - begin;
  if (form.kind == FfnKind::kGluOss)
    step.kernels.glu_oss(gate + begin, up + begin, form.limit, form.alpha, gate + begin, n);
  else if (form.kind == FfnKind::kMlp)
    step.kernels.activate(form.unit, up + begin, scale, gate + begin, n);
  else
    step.kernels.glu(form.unit, gate + begin, up + begin, scale, gate + begin, n);
  if (!group.masked) return;
  const auto first = std::lower_bound(group.masked->begin(), group.masked->end(), begin);
  for (auto unit = first; unit != group.masked->end() && *unit < end; ++unit) gate[*unit] = 0;
}

void FeedForwardRun::down(const Step& step, int64_t hidden) {
  const int parts = step.parts_for(down_bytes());
  step.pool.run(parts, [&](int part, int) {
    const RowRange own = split_rows(hidden, parts, part, kRowMultiple);
    for (const Group& group : groups_) {
      const TokenRows tokens{group.count, slot_act_.data() + group.first, slot_sum_.data() + group.first,
                             slot_weight_.data() + group.first};
      step.kernels.dot_rows(group.expert->down, own.begin, own.end, tokens);
      const std::vector<float>& bias = group.expert->down_bias;
      for (int slot = group.first; !bias.empty() && slot < group.first + group.count; ++slot)
        for (int64_t i = own.begin; i < own.end; ++i) slot_sum_[slot][i] += slot_weight_[slot] * bias[i];
    }
  });
}

void FeedForwardRun::show_units(const Step& step, const FeedForward& spec) const {
  for (const Group& group : groups_) {
    if (group.id == kNoExpert) continue;
    for (int slot = group.first; slot < group.first + group.count; ++slot)
      step.chunk->units->take(spec.row, group.id, int(step.chunk->first) + slot_token_[slot], {slot_act_[slot], size_t(group.form->width)});
  }
}

// Bytes of work in one matrix of every group, counted as Step::multiply() does.
int64_t FeedForwardRun::down_bytes() const {
  int64_t bytes = 0;
  for (const Group& group : groups_) bytes += stored_size(group.expert->down) * ((group.count + 1) / 2);
  return bytes;
}

}  // namespace switchyard::cpu

// Execution of the gathered slots. See feed_forward.h.
#include "engine/backend/cpu/feed_forward.h"

#include <algorithm>

#include "engine/model/linears.h"

namespace switchyard::cpu {
namespace {

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
  const bool adapted = !step.chunk->recipe->adapters.empty();
  if (adapted) adapt_inner(step);
  gate_up(step);
  if (const LayerRecipe* recipe = spec.row < 0 ? nullptr : step.chunk->recipe->layer(spec.row); recipe && cuts_experts(recipe->scheme))
    cut_experts(step, spec, *recipe, in);
  if (step.chunk->units) show_units(step, spec);
  if (adapted) adapt_down(step);
  down(step, groups_.front().expert->down.rows);
  if (taps != 0) measure(step, spec, in, sum);
}

// The adapters of the groups' gate and up matrices. Their routers see what the expert sees, so an input's weight is
// multiplied in.
void FeedForwardRun::adapt_inner(const Step& step) {
  step.adapters->begin();
  const int64_t cols = groups_.front().expert->up.cols;
  if (std::any_of(slot_input_.begin(), slot_input_.end(), [](float weight) { return weight != 1; })) {
    weighed_.shape(static_cast<int>(slot_in_.size()), cols);
    for (size_t slot = 0; slot < slot_in_.size(); ++slot) {
      for (int64_t i = 0; i < cols; ++i) weighed_[int(slot)][i] = slot_in_[slot][i] * slot_input_[slot];
      slot_in_[slot] = weighed_[int(slot)];
      slot_input_[slot] = 1;
    }
  }
  for (Group& group : groups_) {
    if (group.place < 0) continue;
    const auto part = [&](FfnPlace place) {
      return step.adapters->prepare(step, group.place + place, group.count, slot_in_.data() + group.first, slot_token_.data() + group.first);
    };
    if (group.form->kind != FfnKind::kMlp) group.gate_part = part(kPlaceFfnGate);
    group.up_part = part(kPlaceFfnUp);
  }
}

void FeedForwardRun::adapt_down(const Step& step) {
  for (Group& group : groups_) {
    if (group.place < 0) continue;
    group.down_part = step.adapters->prepare(step, group.place + kPlaceFfnDown, group.count, slot_act_.data() + group.first, slot_token_.data() + group.first);
    if (group.down_part) group.down_factors = group.down_part->base_factors(slot_weight_.data() + group.first);
  }
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
  for (const Group& group : groups_)
    for (const Matrix* matrix : {&group.expert->up, &group.expert->gate})
      step.make_room(matrix->type, group.count, matrix->cols);
  const int even = step.parts_for(down_bytes() * 2), parts = even == 1 || step.count == 1 ? even : even * 8;
  step.pool.run(parts, [&](int part, int worker) {
    const RowRange own = split_rows(rows, parts, part, kRowMultiple);
    const auto after = [](int64_t row, const Group& group) { return row < group.row; };
    auto group = std::upper_bound(groups_.begin(), groups_.end(), own.begin, after) - 1;
    for (int64_t row = own.begin; row < own.end; ++group) {
      const int64_t begin = row - group->row, end = std::min<int64_t>(group->form->width, own.end - group->row);
      gate_up_rows(step, *group, begin, end, worker);
      row += end - begin;
    }
  });
}

void FeedForwardRun::gate_up_rows(const Step& step, const Group& group, int64_t begin, int64_t end, int worker) {
  const float* const* in = slot_in_.data() + group.first;
  const Matrix &gate = group.expert->gate, &up = group.expert->up;
  const float* packed = step.pack(up.type, in, group.count, up.cols, worker);
  step.kernels.dot_rows(up, begin, end, {group.count, in, slot_up_.data() + group.first, nullptr, packed});
  if (group.form->kind != FfnKind::kMlp) {
    if (gate.type != up.type) packed = step.pack(gate.type, in, group.count, gate.cols, worker);
    step.kernels.dot_rows(gate, begin, end, {group.count, in, slot_gate_.data() + group.first, nullptr, packed});
  }
  if (group.gate_part) group.gate_part->add_rows(step.kernels, begin, end, slot_gate_.data() + group.first);
  if (group.up_part) group.up_part->add_rows(step.kernels, begin, end, slot_up_.data() + group.first);
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

// The activations of every group as its down matrix reads them.
void FeedForwardRun::pack_active(const Step& step) {
  int64_t floats = 0;
  const auto room = [&](const Group& group) {
    return step.kernels.packed_floats(group.expert->down.type, group.count, group.expert->down.cols);
  };
  for (const Group& group : groups_) floats += room(group);
  packed_active_.reserve(size_t(floats));
  float* next = packed_active_.data();
  for (Group& group : groups_) {
    group.packed = room(group) > 0 ? next : nullptr;
    next += room(group);
  }
  const int parts = std::min(int(groups_.size()), step.parts_for(floats * int64_t(sizeof(float))));
  step.pool.run(floats > 0 ? parts : 0, [&](int part, int) {
    const RowRange own = split_rows(int64_t(groups_.size()), parts, part);
    for (int64_t i = own.begin; i < own.end; ++i) {
      const Group& group = groups_[size_t(i)];
      if (group.packed) step.kernels.pack(slot_act_.data() + group.first, group.count, group.expert->down.cols, group.packed);
    }
  });
}

void FeedForwardRun::down(const Step& step, int64_t hidden) {
  pack_active(step);
  const int parts = step.parts_for(down_bytes());
  step.pool.run(parts, [&](int part, int) {
    const RowRange own = split_rows(hidden, parts, part, kRowMultiple);
    for (const Group& group : groups_) {
      const float* weights = slot_weight_.data() + group.first;
      float* const* sums = slot_sum_.data() + group.first;
      step.kernels.dot_rows(group.expert->down, own.begin, own.end,
                            {group.count, slot_act_.data() + group.first, sums, group.down_part ? group.down_factors : weights, group.packed});
      if (group.down_part) step.kernels.dot_rows(group.down_part->b, own.begin, own.end, {group.count, group.down_part->low.data(), sums, weights});
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

// Feed-forward sublayers of a step: router and decision, then the chosen experts. See executor.h.
#include "engine/backend/cuda/executor.h"

namespace switchyard::cuda {
namespace {

bool gated(const FeedForwardOnDevice& op) {
  return op.shared_gate.rows > 0;
}

}  // namespace

void Executor::run(Stream& stream, const StepShape& shape, const Visit& visit, const FeedForwardOnDevice& op) {
  const SublayerOnDevice& sublayer = model_.sublayers[size_t(visit.sublayer)];
  if (shape.tokens == 1 && op.row >= 0) {
    launch_route(stream, state_.as<StepState>(), router_job(sublayer, op), route_job(shape, op),
                 counters_.as<unsigned>());
  } else {
    make_logits(stream, shape, sublayer, op, true);
    if (op.row >= 0) launch_route_rows(stream, state_.as<StepState>(), route_job(shape, op), shape.tokens);
  }
  make_units(stream, shape, op);
  add_outputs(stream, shape, op, hidden(), sublayer.factor);
}

RouteJob Executor::route_job(const StepShape& shape, const FeedForwardOnDevice& op) const {
  return {.tables = tables(),
          .row = op.row,
          .logits = router_.as<float>(),
          .biased = biased_.as<float>(),
          .width = shape.width,
          .slots = shape.slots,
          .chosen = chosen(shape),
          .ring = shape.ring};
}

// Of one token. The gate of the shared block is one more row of the router's product.
Projection Executor::router_job(const SublayerOnDevice& sublayer, const FeedForwardOnDevice& op) const {
  return {.in = hidden(),
          .cols = model_.hidden,
          .norm = sublayer.norm,
          .normed = normed(),
          .parts = {op.router, op.shared_gate},
          .count = gated(op) ? 2 : 1,
          .out = router_.as<float>()};
}

void Executor::make_logits(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer,
                           const FeedForwardOnDevice& op, bool norms) {
  const int tokens = shape.tokens;
  if (tokens == 1 && op.row >= 0) {
    Projection job = router_job(sublayer, op);
    if (!norms) job.in = normed(), job.norm = {}, job.normed = nullptr;
    return launch_project(stream, job);
  }
  if (norms) launch_norm_rows(stream, hidden(), sublayer.norm, model_.hidden, normed(), tokens);
  if (op.row < 0) return;
  multiply(stream, tokens, normed(), op.router, nullptr, router_.as<float>(), op.gate.spec.experts, 0);
  if (gated(op)) multiply(stream, tokens, normed(), op.shared_gate, nullptr, shared_gates_.as<float>(), 1, 0);
}

void Executor::make_logits(const StepShape& shape, const SublayerOnDevice& sublayer, bool norms) {
  make_logits(stream_, shape, sublayer, std::get<FeedForwardOnDevice>(sublayer.op), norms);
}

void Executor::make_more(const StepShape& shape, const Matrix& matrix, float* out) {
  if (shape.tokens == 1)
    launch_project(stream_, {.in = normed(), .cols = matrix.cols, .parts = {matrix}, .count = 1, .out = out});
  else
    multiply(stream_, shape.tokens, normed(), matrix, nullptr, out, matrix.rows, 0);
}

void Executor::decide(const StepShape& shape, const FeedForwardOnDevice& op) {
  launch_route_rows(stream_, state_.as<StepState>(), route_job(shape, op), shape.tokens);
}

Sorted Executor::sorted() const {
  return {slot_counts_.as<int32_t>(), slot_starts_.as<int32_t>(), slot_tokens_.as<int32_t>(), slot_inputs_.as<float>(),
          slot_places_.as<int32_t>()};
}

// Of one token.
ExpertJob Executor::expert_job(const StepShape& shape, const FeedForwardOnDevice& op, float* out, float factor) const {
  ExpertJob job{.experts = op.row >= 0 ? op.experts : nullptr,
                .form = op.form,
                .chosen = chosen(shape),
                .shared = op.shared,
                .shared_form = op.shared_form,
                .shared_gate = gated(op) ? router_.as<float>() + op.router.rows : nullptr,
                .in = normed(),
                .hidden = model_.hidden,
                .units = units(),
                .width = op.width(),
                .output_bias = op.output_bias,
                .out = out,
                .factor = factor};
  if (op.row < 0) job.chosen.slots = 0;
  return job;
}

void Executor::make_units(const StepShape& shape, const FeedForwardOnDevice& op) {
  make_units(stream_, shape, op);
}
void Executor::add_outputs(const StepShape& shape, const FeedForwardOnDevice& op, float* out, float factor) {
  add_outputs(stream_, shape, op, out, factor);
}

void Executor::make_units(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op) {
  const int tokens = shape.tokens;
  if (tokens == 1) return launch_expert_units(stream, expert_job(shape, op, nullptr, 1));
  if (op.row >= 0) {
    const int experts = op.gate.spec.experts;
    launch_sort_slots(stream, chosen(shape), tokens, experts, sorted());
    launch_group_units(stream,
                       {.experts = op.experts,
                        .form = op.form,
                        .bf16 = op.bf16_units,
                        .starts = sorted().starts,
                        .rows = sorted().tokens,
                        .weights = sorted().inputs,
                        .in = normed(),
                        .cols = model_.hidden,
                        .out = units()},
                       experts, tokens);
  }
  if (op.shared)
    launch_group_units(stream,
                       {.experts = op.shared,
                        .form = op.shared_form,
                        .bf16 = op.shared_bf16_units,
                        .tokens = tokens,
                        .in = normed(),
                        .cols = model_.hidden,
                        .out = shared_units_.as<float>()},
                       1, tokens);
}

void Executor::add_outputs(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op, float* out,
                           float factor) {
  const int tokens = shape.tokens;
  if (tokens == 1) return launch_expert_down(stream, expert_job(shape, op, out, factor));
  CombineJob sum{
      .chosen = chosen(shape), .output_bias = op.output_bias, .hidden = model_.hidden, .out = out, .factor = factor};
  if (op.row >= 0) {
    make_outputs(stream, shape, op);
    sum.places = sorted().places, sum.routed = outputs();
  }
  if (op.shared) {
    launch_group_down(stream,
                      {.experts = op.shared,
                       .form = op.shared_form,
                       .bf16 = op.shared_bf16_down,
                       .tokens = tokens,
                       .in = shared_units_.as<float>(),
                       .cols = op.shared_form.width,
                       .out = shared_.as<float>()},
                      model_.hidden, 1, tokens);
    sum.shared = shared_.as<float>();
    if (gated(op)) sum.shared_gate = shared_gates_.as<float>();
  }
  launch_combine(stream, sum, tokens);
}

void Executor::make_outputs(const StepShape& shape, const FeedForwardOnDevice& op) {
  if (shape.tokens == 1) launch_sort_slots(stream_, chosen(shape), 1, op.gate.spec.experts, sorted());
  make_outputs(stream_, shape, op);
}

void Executor::make_outputs(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op) {
  launch_group_down(stream,
                    {.experts = op.experts,
                     .form = op.form,
                     .bf16 = op.bf16_down,
                     .starts = sorted().starts,
                     .in = units(),
                     .cols = op.form.width,
                     .step = shape.tokens == 1 ? op.width() : op.form.width,
                     .out = outputs()},
                    model_.hidden, op.gate.spec.experts, shape.tokens);
}

}  // namespace switchyard::cuda

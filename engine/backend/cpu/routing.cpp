// From normed inputs to slots sorted by expert. See feed_forward.h.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/backend/cpu/feed_forward.h"

namespace switchyard::cpu {
namespace {

bool own_row_cosines(const Scheme& scheme) { return scheme && scheme.stages.source == LogitSource::kCosine; }

// Of one decision, counted as bytes read: about some per expert, and what the scheme's matrices hold.
int64_t decision_bytes(const RouterSpec& spec, const LayerRecipe* recipe) {
  int64_t bytes = int64_t(spec.experts) * 512;
  if (recipe && is_recurrent(recipe->scheme)) {
    const int64_t p = recipe->scheme.file->gru.width(), d = recipe->scheme.data->to_state.cols;
    bytes += p * (d + 6 * p + spec.experts) * 8;
  }
  if (recipe && recipe->scheme.stages.bank) bytes += int64_t(recipe->scheme.data->bank.exemplars.values.size()) * 8;
  return bytes;
}

}  // namespace

void FeedForwardRun::route_tokens(const Step& step, const FeedForward& spec, const float* const* in) {
  if (step.chunk->tap)
    for (int token = 0; token < step.count; ++token)
      step.chunk->tap->see(spec.row, step.chunk->first + size_t(token), {in[token], size_t(spec.router_weight.cols)});
  shape_rows(step.count, spec.router.experts, router_logits_, router_out_);
  const bool gated = spec.shared_gate.rows > 0;
  shared_gates_.resize(step.count);
  shared_gate_out_.resize(step.count);
  for (int token = 0; token < step.count; ++token) shared_gate_out_[token] = &shared_gates_[token];
  const std::array products{Product{&spec.router_weight, {step.count, in, router_out_.data(), nullptr}},
                            Product{&spec.shared_gate, {step.count, in, shared_gate_out_.data(), nullptr}}};
  step.multiply(std::span(products).first(gated ? 2 : 1));

  const LayerRecipe* recipe = step.chunk->recipe->layer(spec.row);
  const std::span<const float> gate = recipe ? gate_of(recipe->scheme, pass_) : std::span<const float>();
  if (!gate.empty()) replace_gate(step, spec, gate, in);
  else if (recipe && !recipe->router_rows.empty()) replace_rows(step, spec, *recipe, in);
  slots_per_token_ = slots_needed(spec.router, recipe);
  const size_t slots = size_t(step.count) * slots_per_token_;
  decisions_.resize(step.count);
  ids_.resize(slots);
  weights_.resize(slots);
  kinds_.resize(slots);
  const bool together = recipe && batch_coupled(recipe->scheme);
  if (together) edited_.resize(size_t(step.count) * 2 * spec.router.experts);
  if (recipe && own_row_cosines(recipe->scheme)) {
    const auto norms = row_norms(step, spec);
    if (!recipe->router_rows.empty()) edited_weights_.set_norms(spec.row, norms);
  }
  for (int token = 0; gate.empty() && token < step.count; ++token)
    for (size_t e = 0; e < spec.router_bias.size(); ++e) router_logits_[token][e] += spec.router_bias[e];
  if (recipe && mixes_tokens(recipe->scheme)) mix_neighbours(step, spec, *recipe, in);
  if (recipe && has_state(recipe->scheme)) states_.prepare(recipe->scheme, size_t(step.count));
  scratch_.resize(step.pool.threads());
  for (AlignedFloats& scratch : scratch_) scratch.reserve(scratch_needed(spec.router, recipe));
  step.for_tokens(decision_bytes(spec.router, recipe),
                  [&](int token, int worker) { route_token(step, spec, recipe, in[token], token, worker); });
  if (together) settle(step, spec, *recipe);
}

// Makes the logits of replaced router rows anew; native_logits_ keeps the router's own.
void FeedForwardRun::replace_rows(const Step& step, const FeedForward& spec, const LayerRecipe& recipe,
                                  const float* const* in) {
  const ReplacedRows& rows = edited_weights_.rows(step.kernels, spec, recipe);
  shape_rows(step.count, rows.matrix.rows, replaced_logits_, replaced_out_);
  const Product product{&rows.matrix, {step.count, in, replaced_out_.data(), nullptr}};
  step.multiply({&product, 1});
  keep_native(step, spec);
  for (int token = 0; token < step.count; ++token)
    for (size_t i = 0; i < rows.experts.size(); ++i) router_logits_[token][rows.experts[i]] = replaced_logits_[token][i];
}

// A gate of a scheme's file, [E, hidden], in the place of the router's weight; it has no bias.
void FeedForwardRun::replace_gate(const Step& step, const FeedForward& spec, std::span<const float> gate,
                                  const float* const* in) {
  keep_native(step, spec);
  const Matrix matrix{reinterpret_cast<const unsigned char*>(gate.data()), Stored::kF32, spec.router.experts,
                      spec.router_weight.cols};
  const Product product{&matrix, {step.count, in, router_out_.data(), nullptr}};
  step.multiply({&product, 1});
}

void FeedForwardRun::keep_native(const Step& step, const FeedForward& spec) {
  native_logits_.shape(step.count, spec.router.experts);
  for (int token = 0; token < step.count; ++token) {
    std::copy_n(router_logits_[token], spec.router.experts, native_logits_[token]);
    for (size_t e = 0; e < spec.router_bias.size(); ++e) native_logits_[token][e] += spec.router_bias[e];
  }
}

// The tokens of the chunk into the memory, then what each takes from it.
void FeedForwardRun::mix_neighbours(const Step& step, const FeedForward& spec, const LayerRecipe& recipe,
                                    const float* const* in) {
  const Stages& stages = recipe.scheme.stages;
  const auto experts = size_t(spec.router.experts), width = size_t(spec.router_weight.cols);
  const bool likeness = stages.mixing == Mixing::kLikeness;
  TokenMemory& memory = step.chunk->cache->routers();
  memory.prepare(step.row_in_pass(spec.row), uint64_t(step.position), size_t(step.count), experts, likeness ? width : 0);
  step.for_tokens(int64_t(experts) * 64, [&](int token, int) {
    const auto index = uint64_t(step.position + token);
    token_probabilities(recipe, input_of(step, spec, &recipe, token), memory.write_probabilities(step.row_in_pass(spec.row), index));
    if (likeness) std::copy_n(in[token], width, memory.write_input(step.row_in_pass(spec.row), index).data());
  });
  mixed_.resize(stages.lambda > 0 ? size_t(step.count) * experts : 0);
  if (mixed_.empty()) return;
  neighbours_.resize(size_t(step.pool.threads()));
  const int64_t window = std::min(stages.window, step.position + step.count);
  step.for_tokens(window * int64_t(experts + (likeness ? width : 0)) * 8, [&](int token, int worker) {
    const auto index = uint64_t(step.position + token);
    const std::span<float> mixed = std::span(mixed_).subspan(size_t(token) * experts, experts);
    NeighbourMix& mix = neighbours_[size_t(worker)];
    if (likeness) mix.by_likeness(memory, step.row_in_pass(spec.row), index, recipe.scheme, mixed);
    else
      mix.by_attention(memory, step.row_in_pass(spec.row), index, recipe.scheme, {step.attention->shares[token], size_t(step.attention->window)}, mixed);
  });
}

bool FeedForwardRun::own_gate(const LayerRecipe* recipe) const {
  return !recipe || gate_of(recipe->scheme, pass_).empty();
}

RouterInput FeedForwardRun::input_of(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, int token) {
  const auto experts = size_t(spec.router.experts);
  const int block = token / kBlockTokens * kBlockTokens;
  RouterInput given{.logits = {router_logits_[token], experts},
                    .router_bias = own_gate(recipe) ? std::span<const float>(spec.router_bias) : std::span<const float>(),
                    .select_bias = spec.select_bias,
                    .token = step.chunk->tokens[token],
                    .index = uint64_t(step.position + token),
                    .first_index = uint64_t(step.position + block),
                    .together = std::min(kBlockTokens, step.count - block),
                    .sequence = step.chunk->stream,
                    .row = step.row_in_pass(spec.row)};
  if (!own_gate(recipe) || (recipe && !recipe->router_rows.empty())) given.native = {native_logits_[token], experts};
  return given;
}

void FeedForwardRun::route_token(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, const float* in,
                                 int token, int worker) {
  const size_t experts = spec.router.experts, first = size_t(token) * slots_per_token_;
  RouterInput given = input_of(step, spec, recipe, token);
  DecisionSpans out{std::span(ids_).subspan(first, slots_per_token_), std::span(weights_).subspan(first, slots_per_token_),
                    std::span(kinds_).subspan(first, slots_per_token_)};
  const bool together = recipe && batch_coupled(recipe->scheme);
  if (together) out.edited = std::span(edited_).subspan(size_t(token) * 2 * experts, 2 * experts);
  if (recipe && reads_input(recipe->scheme)) given.hidden = {in, size_t(spec.router_weight.cols)};
  if (recipe && own_row_cosines(recipe->scheme))
    given.row_norms = recipe->router_rows.empty() ? row_norms_.at(spec.row) : edited_weights_.norms(spec.row);
  if (recipe && mixes_tokens(recipe->scheme) && !mixed_.empty())
    given.mixed = std::span<const float>(mixed_).subspan(size_t(token) * experts, experts);
  if (recipe && has_state(recipe->scheme)) out.state = states_.of(size_t(token));
  decisions_[token] =
      route(spec.router, recipe, given, {scratch_[worker].data(), scratch_needed(spec.router, recipe)}, out);
  if (!together) record(step, spec, token);
}

void FeedForwardRun::settle(const Step& step, const FeedForward& spec, const LayerRecipe& recipe) {
  const size_t slots = slots_per_token_, width = 2 * size_t(spec.router.experts);
  for (size_t first = 0; first < size_t(step.count); first += kBlockTokens) {
    const size_t count = std::min<size_t>(kBlockTokens, step.count - first);
    settle_block(spec.router, &recipe,
                 {int(slots), std::span(decisions_).subspan(first, count), std::span(ids_).subspan(first * slots, count * slots),
                  std::span(weights_).subspan(first * slots, count * slots), std::span(kinds_).subspan(first * slots, count * slots),
                  std::span<const float>(edited_).subspan(first * width, count * width)},
                 block_);
  }
  for (int token = 0; token < step.count; ++token) record(step, spec, token);
}

void FeedForwardRun::record(const Step& step, const FeedForward& spec, int token) {
  if (step.chunk->frames.empty()) return;
  const size_t first = size_t(token) * slots_per_token_, slots = slots_per_token_;
  RoutingFrame& frame = step.chunk->frames[token];
  const LayerRecipe* recipe = step.pass == 0 ? nullptr : step.chunk->recipe->layer(spec.row);
  frame.record(decision_row(frame.header().moe_layers, spec.row, recipe, step.pass, pass_), decisions_[token], std::span(ids_).subspan(first, slots),
                                   std::span(weights_).subspan(first, slots), std::span(kinds_).subspan(first, slots),
                                   std::span<const float>(router_logits_[token], spec.router.experts));
}

std::span<const float> FeedForwardRun::row_norms(const Step& step, const FeedForward& spec) {
  std::vector<float>& norms = row_norms_[spec.row];
  if (!norms.empty()) return norms;
  const Matrix& weight = spec.router_weight;
  std::vector<float> row(weight.cols);
  for (int64_t e = 0; e < weight.rows; ++e) {
    step.kernels.load_row(weight, e, row.data());
    double sum = 0;
    for (const float value : row) sum += double(value) * value;
    norms.push_back(static_cast<float>(std::sqrt(sum)));
  }
  return norms;
}

// Counting sort of the executed slots by expert, within one expert by token. Identities (the experts that
// have no weights) are added at once.
void FeedForwardRun::gather(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum) {
  const LayerRecipe* recipe = step.chunk->recipe->layer(spec.row);
  const std::vector<float>* expert_scale = recipe && !recipe->expert_scale.empty() ? &recipe->expert_scale : nullptr;
  const bool weigh_input = spec.router.apply == ApplyTo::kInput;
  const size_t experts = spec.experts.size();

  edited_weights_.tidy(spec.row, recipe);
  // Groups of the experts by id, then those of the local experts that stand beside them.
  const size_t kinds = recipe && !recipe->others.empty() ? 2 * experts : experts;
  next_.assign(kinds + 1, 0);
  const auto each = [&](auto&& visit) {
    for (int token = 0; token < step.count; ++token)
      for (int slot = 0; slot < decisions_[token].k_used; ++slot)
        if (const size_t at = size_t(token) * slots_per_token_ + slot; executed(kinds_[at])) visit(token, at);
  };
  each([&](int token, size_t at) {
    if (runs_here(spec, recipe, ids_[at])) ++next_[group_of(spec, recipe, ids_[at], in[token]) + 1];
  });
  groups_.clear();
  int64_t row = 0;
  for (size_t g = 0; g < kinds; ++g) {
    if (next_[g + 1] > 0) {
      const size_t e = g % experts;
      const OtherExpert* other = recipe && recipe->other(e) ? &recipe->other(e) : nullptr;
      const OtherNetwork* network = other && (g >= experts || other->kind != ExpertKind::kLocal) ? &edited_weights_.other(spec.row, e, *other) : nullptr;
      const Expert& weights = network ? network->expert : recipe ? edited_weights_.expert(step.kernels, spec, *recipe, e) : spec.experts[e];
      groups_.push_back({&weights, network ? &network->form : &spec.form, next_[g], next_[g + 1], row, network ? -1 : spec.experts[e].place});
      if (recipe && !recipe->unit_mask(e).empty()) groups_.back().masked = &recipe->unit_mask(e);
      groups_.back().id = static_cast<ExpertId>(e);
      row += groups_.back().form->width;
    }
    next_[g + 1] += next_[g];
  }
  size_slots(size_t(next_.back()));
  slot_share_.resize(slot_in_.size());
  each([&](int token, size_t at) {
    const float scale = (expert_scale ? (*expert_scale)[ids_[at]] : 1.0f) * sum.factor;
    if (!runs_here(spec, recipe, ids_[at]))
      return add_at_once(step, spec, recipe, ids_[at], token, weigh_input ? scale : weights_[at] * scale,
                         weigh_input ? weights_[at] : 1.0f, in[token], sum);
    const int slot = next_[group_of(spec, recipe, ids_[at], in[token])]++;
    slot_weight_[slot] = weigh_input ? scale : weights_[at] * scale;
    slot_input_[slot] = weigh_input ? weights_[at] : 1.0f;
    slot_share_[slot] = weigh_input ? 1.0f : weights_[at];
    slot_in_[slot] = in[token];
    slot_token_[slot] = token;
    slot_sum_[slot] = sum.rows[token];
  });
}

// One more group: every token takes the shared block.
void FeedForwardRun::gather_shared(const Step& step, const FeedForward& spec, const float* const* in, const Sum& sum) {
  const size_t first = slot_in_.size();
  const int64_t row = groups_.empty() ? 0 : groups_.back().row + groups_.back().form->width;
  groups_.push_back({&*spec.shared, &spec.shared_form, int(first), step.count, row, spec.shared->place});
  size_slots(first + step.count);
  for (int token = 0; token < step.count; ++token) {
    const float gate = spec.shared_gate.rows > 0 ? 1 / (1 + std::exp(-shared_gates_[token])) : 1.0f;
    slot_weight_[first + token] = gate * sum.factor;
    slot_input_[first + token] = 1.0f;
    slot_in_[first + token] = in[token];
    slot_token_[first + token] = token;
    slot_sum_[first + token] = sum.rows[token];
  }
}

void FeedForwardRun::size_slots(size_t slots) {
  slot_weight_.resize(slots);
  slot_input_.resize(slots);
  slot_in_.resize(slots);
  slot_token_.resize(slots);
  slot_sum_.resize(slots);
}

}  // namespace switchyard::cpu

// See router.h.
#include "engine/backend/reference/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "engine/backend/reference/math.h"
#include "engine/routing/block.h"
#include "engine/routing/decision.h"
#include "engine/routing/edited_weights.h"
#include "engine/routing/neighbours.h"

namespace switchyard::reference {

Router::Router(const RoutedSpec& spec, const Loader& load)
    : spec_(spec.router),
      weight_(load.matrix(spec.router_weight)),
      bias_(load.vector(spec.router_bias)),
      select_bias_(load.vector(spec.select_bias)),
      type_(exact_dtype(spec.router_weight)) {}

at::Tensor Router::weight_under(const LayerRecipe& recipe) const {
  at::Tensor weight = weight_.clone();
  const auto row = [](const at::Tensor& of, size_t id) {
    return std::span(of.const_data_ptr<float>() + id * size_t(of.size(1)), size_t(of.size(1)));
  };
  for (size_t id = 0; id < recipe.router_rows.size(); ++id) {
    const RowSource& source = recipe.router_rows[id];
    if (source == RowSource{}) continue;
    const std::span<const float> other = source.expert == kNoExpert ? std::span<const float>() : row(weight_, source.expert);
    edited_row(source, row(weight_, id), other, type_,
               {weight.data_ptr<float>() + id * size_t(weight.size(1)), size_t(weight.size(1))});
  }
  return weight;
}

std::vector<float> Router::mix_neighbours(const at::Tensor& logits, const at::Tensor& x, const Step& step,
                                          const LayerRecipe& recipe) const {
  const Stages& stages = recipe.scheme.stages;
  const auto tokens = size_t(x.size(0)), experts = size_t(spec_.experts), width = size_t(x.size(1));
  const bool likeness = stages.mixing == Mixing::kLikeness;
  TokenMemory& memory = *step.routers;
  memory.prepare(step.row_in_pass(), step.first_index, tokens, experts, likeness ? width : 0);
  for (size_t token = 0; token < tokens; ++token) {
    const RouterInput in{.logits = {logits.const_data_ptr<float>() + token * experts, experts}, .router_bias = floats(bias_)};
    token_probabilities(recipe, in, memory.write_probabilities(step.row_in_pass(), step.first_index + token));
    if (likeness) std::copy_n(x.const_data_ptr<float>() + token * width, width, memory.write_input(step.row_in_pass(), step.first_index + token).data());
  }
  std::vector<float> mixed(stages.lambda > 0 ? tokens * experts : 0);
  NeighbourMix mix;
  for (size_t token = 0; token < tokens && !mixed.empty(); ++token) {
    const std::span<float> own = std::span(mixed).subspan(token * experts, experts);
    if (likeness) {
      mix.by_likeness(memory, step.row_in_pass(), step.first_index + token, recipe.scheme, own);
      continue;
    }
    const auto window = size_t(step.attention->window);
    mix.by_attention(memory, step.row_in_pass(), step.first_index + token, recipe.scheme,
                     {step.attention->shares.const_data_ptr<float>() + token * window, window}, own);
  }
  return mixed;
}

std::vector<Share> Router::route_rows(const at::Tensor& x, const Step& step) const {
  at::Tensor logits = project(x, weight_, bias_);
  if (spec_.product_key) {  // the two key sets as transformers views them: halves of the whole, not of a row
    const at::Tensor keys = logits.reshape({2, x.size(0), -1});
    logits = (keys[0].unsqueeze(2) + keys[1].unsqueeze(1)).flatten(1);
  }
  logits = logits.contiguous();
  const LayerRecipe* recipe = step.recipe->layer(step.row);
  at::Tensor native;
  const std::span<const float> gate = recipe ? gate_of(recipe->scheme, step.pass) : std::span<const float>();
  if (!gate.empty()) {  // of a scheme's file; it has no bias
    native = logits;
    logits = project(x, at::from_blob(const_cast<float*>(gate.data()), weight_.sizes())).contiguous();
  } else if (recipe && !recipe->router_rows.empty()) {
    native = logits;
    logits = project(x, weight_under(*recipe), bias_).contiguous();
  }
  const auto experts = size_t(spec_.experts), slots = size_t(slots_needed(spec_, recipe)), tokens = size_t(x.size(0));
  const bool together = recipe && batch_coupled(recipe->scheme), reads = recipe && reads_input(recipe->scheme);
  const bool cosine = reads && recipe->scheme.stages.source == LogitSource::kCosine, states = recipe && has_state(recipe->scheme);
  if (states) step.states->prepare(recipe->scheme, size_t(x.size(0)));
  const auto raw = [&](size_t token) { return std::span(logits.const_data_ptr<float>() + token * experts, experts); };
  const at::Tensor inputs = reads ? x.contiguous() : at::Tensor(),
                   norms = cosine ? (native.defined() ? weight_under(*recipe) : weight_).square().sum(1).sqrt().contiguous() : at::Tensor();
  if (step.tap) {
    const at::Tensor seen = x.contiguous();
    for (size_t token = 0; token < tokens; ++token)
      step.tap->see(step.row, token, {seen.const_data_ptr<float>() + token * size_t(x.size(1)), size_t(x.size(1))});
  }
  std::vector<float> mixed;
  if (recipe && mixes_tokens(recipe->scheme)) mixed = mix_neighbours(logits, x.contiguous(), step, *recipe);
  std::vector<Decision> decisions(tokens);
  std::vector<ExpertId> ids(tokens * slots);
  std::vector<float> applied(tokens * slots), scratch(scratch_needed(spec_, recipe)), edited(together ? tokens * 2 * experts : 0);
  std::vector<SlotKind> kinds(tokens * slots);
  BlockScratch room;
  const size_t block = together ? size_t(kBlockTokens) : tokens;
  for (size_t first = 0; first < tokens; first += block) {
    const size_t count = std::min(block, tokens - first);
    for (size_t token = first; token < first + count; ++token) {
      RouterInput in{.logits = raw(token),
                     .router_bias = gate.empty() ? floats(bias_) : std::span<const float>(),
                     .select_bias = floats(select_bias_),
                     .token = step.tokens[token],
                     .index = step.first_index + token,
                     .first_index = step.first_index + first,
                     .together = int(count),
                     .sequence = step.stream,
                     .row = step.row_in_pass()};
      if (native.defined()) in.native = {native.const_data_ptr<float>() + token * experts, experts};
      if (!mixed.empty()) in.mixed = std::span<const float>(mixed).subspan(token * experts, experts);
      if (reads) {
        in.hidden = {inputs.const_data_ptr<float>() + token * size_t(x.size(1)), size_t(x.size(1))};
        if (cosine) in.row_norms = floats(norms);
      }
      DecisionSpans out{std::span(ids).subspan(token * slots, slots), std::span(applied).subspan(token * slots, slots),
                        std::span(kinds).subspan(token * slots, slots)};
      if (together) out.edited = std::span(edited).subspan(token * 2 * experts, 2 * experts);
      if (states) out.state = step.states->of(token);
      decisions[token] = route(spec_, recipe, in, scratch, out);
    }
    settle_block(spec_, recipe,
                 {int(slots), std::span(decisions).subspan(first, count), std::span(ids).subspan(first * slots, count * slots),
                  std::span(applied).subspan(first * slots, count * slots), std::span(kinds).subspan(first * slots, count * slots),
                  together ? std::span<const float>(edited).subspan(first * 2 * experts, count * 2 * experts) : std::span<const float>()},
                 room);
  }

  std::vector<Share> shares(experts);
  for (size_t token = 0; token < tokens; ++token) {
    const size_t first = token * slots;
    if (!step.frames.empty())
      step.frames[token].record(decision_row(step.frames[token].header().moe_layers, step.row, recipe, step.layer_pass, step.pass), decisions[token], std::span(ids).subspan(first, slots),
                                std::span(applied).subspan(first, slots), std::span(kinds).subspan(first, slots),
                                raw(token));
    for (size_t at = first; at < first + size_t(decisions[token].k_used); ++at) {
      if (kinds[at] != SlotKind::kRouted && kinds[at] != SlotKind::kForced) continue;
      shares[ids[at]].rows.push_back(int64_t(token));
      shares[ids[at]].weights.push_back(applied[at]);
    }
  }
  return shares;
}

at::Tensor Router::weights(const at::Tensor& x, const Step& step, const std::vector<Share>& shares, LensRow* lens) const {
  const LayerRecipe* recipe = step.recipe->layer(step.row);
  at::Tensor z = project(x, recipe && !recipe->router_rows.empty() ? weight_under(*recipe) : weight_, bias_);
  const auto constant = [](const auto& values) {
    return at::from_blob(const_cast<float*>(values.data()), {int64_t(values.size())}).clone();
  };
  if (recipe && !recipe->row_scale.empty()) {
    const at::Tensor own = bias_.defined() ? bias_ : at::zeros_like(z[0]);
    z = (z - own) * constant(recipe->row_scale) + own;
  }
  z = z + (*step.biases)[size_t(step.row)];
  if (recipe && recipe->temperature != 1) z = z / recipe->temperature;
  const auto experts = size_t(z.size(1));
  std::vector<uint8_t> marks(size_t(z.size(0)) * experts);
  for (size_t e = 0; e < shares.size(); ++e)
    for (const int64_t row : shares[e].rows) marks[size_t(row) * experts + e] = 1;
  const at::Tensor selected = at::from_blob(marks.data(), z.sizes(), at::TensorOptions().dtype(at::kByte)).to(at::kBool);
  if (recipe && !recipe->muted.empty())
    for (size_t e = 0; e < recipe->muted.size(); ++e)
      if (recipe->muted[e]) z = z.index_fill(1, at::tensor(int64_t(e)), -std::numeric_limits<float>::infinity());
  if (lens) lens->logits = z.detach(), lens->selected = selected.clone();
  at::Tensor w;
  switch (spec_.score) {
    case ScoreFn::kSoftmaxAll: w = z.softmax(-1); break;
    case ScoreFn::kSoftmaxTopK: w = z.masked_fill(selected.logical_not(), -std::numeric_limits<float>::infinity()).softmax(-1); break;
    case ScoreFn::kSigmoid:
    case ScoreFn::kSigmoidTopK: w = z.sigmoid(); break;
    default: w = z; break;
  }
  w = at::where(selected, w, at::zeros_like(w));
  const at::Tensor sum = w.sum(-1, true);
  switch (spec_.renorm) {
    case Renorm::kNone: break;
    case Renorm::kSum: w = w / sum; break;
    case Renorm::kSumEps20: w = w / (sum + 1e-20f); break;
    case Renorm::kSumEps6: w = w / (sum + 1e-6f); break;
    case Renorm::kMaxSum: w = w / sum.clamp_min(spec_.renorm_floor); break;
    case Renorm::kPNorm: w = w / w.abs().pow(spec_.renorm_floor).sum(-1, true).pow(1 / spec_.renorm_floor); break;
  }
  return w * spec_.scale;
}

}  // namespace switchyard::reference

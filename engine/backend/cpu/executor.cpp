// The walk through the layers, the residual stream and the logits. See executor.h.
#include "engine/backend/cpu/executor.h"

#include <algorithm>
#include <array>

namespace switchyard::cpu {

Result<void> Executor::run(const Chunk& chunk) {
  step_.begin(chunk);
  step_.attention = &attention_;
  feed_forward_.begin();
  const int count = step_.count;
  shape_rows(count, model_.hidden, hidden_, hidden_rows_);
  shape_rows(count, model_.hidden, normed_, normed_rows_);
  shape_rows(count, model_.hidden, made_, made_rows_);
  shape_rows(count, model_.hidden, deferred_, deferred_rows_);
  if (chunk.first_layer == 0) embed();
  for (int token = 0; chunk.first_layer > 0 && token < count; ++token)
    std::copy_n(chunk.hidden + size_t(token) * model_.hidden, model_.hidden, hidden_[token]);
  for (size_t layer = size_t(chunk.first_layer); layer < size_t(chunk.end_layer); ++layer) {
    if (chunk.task && chunk.task->cancelled())
      return fail(ErrorCode::kCancelled, "stopped before layer " + std::to_string(layer) + ".");
    const int passes = chunk.recipe->passes_of(int(layer));
    for (step_.pass = 0; step_.pass < passes; ++step_.pass) run_layer(model_.layers[layer], !chunk.experts_off.empty() && chunk.experts_off[layer]);
  }
  for (int token = 0; chunk.hidden && token < count; ++token)
    std::copy_n(hidden_[token], model_.hidden, chunk.hidden + size_t(token) * model_.hidden);
  write_logits();
  return {};
}

void Executor::embed() {
  const Matrix& table = model_.embedding;
  for (int token = 0; token < step_.count; ++token) {
    float* hidden = hidden_[token];
    step_.kernels.load_row(table, step_.chunk->tokens[token], hidden);
    if (model_.embedding_scale != 1)
      for (int i = 0; i < model_.hidden; ++i) hidden[i] *= model_.embedding_scale;
  }
}

void Executor::run_layer(const Layer& layer, bool experts_off) {
  const bool defers = layer.defers();
  for (int token = 0; defers && token < step_.count; ++token) std::fill_n(deferred_[token], model_.hidden, 0.0f);
  for (size_t i = 0; i < layer.sublayers.size(); ++i) {
    const Sublayer& sublayer = layer.sublayers[i];
    if (!std::holds_alternative<FeedForward>(sublayer.op)) attention_.window = attention_window(layer, i);
    if (experts_off && sublayer.routes())
      leave_out(sublayer);
    else
      run_sublayer(sublayer);
  }
  for (int token = 0; defers && token < step_.count; ++token)
    for (int i = 0; i < model_.hidden; ++i) hidden_[token][i] += deferred_[token][i];
}

// How many tokens back the routers between this mixer and the next one follow its attention; 0: none does.
int Executor::attention_window(const Layer& layer, size_t mixer) const {
  const Recipe& recipe = *step_.chunk->recipe;
  int window = 0;
  for (size_t i = mixer + 1; i < layer.sublayers.size(); ++i) {
    const auto* routed = std::get_if<FeedForward>(&layer.sublayers[i].op);
    if (!routed) break;
    const LayerRecipe* own = routed->row >= 0 ? recipe.layer(routed->row) : nullptr;
    if (own && own->scheme && own->scheme.stages.mixing == Mixing::kAttention) window = std::max(window, own->scheme.stages.window);
  }
  return std::min(window, step_.position + step_.count);
}

void Executor::run_sublayer(const Sublayer& sublayer) {
  normalise(sublayer.norm, hidden_, normed_);
  if (const auto* block = std::get_if<FeedForward>(&sublayer.op); block && block->row >= 0)
    if (const LayerRecipe* recipe = step_.chunk->recipe->layer(block->row); recipe && runs_in_passes(recipe->scheme))
      return run_passes(sublayer, *block, recipe->scheme.stages);
  if (sublayer.adds_in_place()) {
    factors_.assign(step_.count, sublayer.scale);
    return run_op(sublayer, {hidden_rows_.data(), factors_.data(), sublayer.scale});
  }
  factors_.assign(step_.count, 1.0f);
  for (int token = 0; token < step_.count; ++token) std::fill_n(made_[token], model_.hidden, 0.0f);
  run_op(sublayer, {made_rows_.data(), factors_.data(), 1.0f});
  step_.for_tokens(model_.hidden * int64_t(sizeof(float)), [&](int token, int) { combine(sublayer, token); });
}

// See PassResidual.
void Executor::run_passes(const Sublayer& sublayer, const FeedForward& block, const Stages& scheme) {
  shape_rows(step_.count, model_.hidden, state_, state_rows_);
  shape_rows(step_.count, model_.hidden, pass_, pass_rows_);
  factors_.assign(step_.count, 1.0f);
  const auto each = [&](auto&& visit) {
    for (int token = 0; token < step_.count; ++token)
      for (int i = 0; i < model_.hidden; ++i) visit(token, i);
  };
  each([&](int token, int i) { state_[token][i] = normed_[token][i], made_[token][i] = 0; });
  for (int pass = 0; pass < scheme.passes; ++pass) {
    each([&](int token, int i) { pass_[token][i] = 0; });
    feed_forward_.run(step_, block, state_rows_.data(), {pass_rows_.data(), factors_.data(), 1.0f}, pass);
    each([&](int token, int i) {
      const float y = pass_[token][i];
      state_[token][i] = scheme.residual == PassResidual::kOuter ? y : state_[token][i] + y;
      made_[token][i] = scheme.residual == PassResidual::kSum ? made_[token][i] + y : state_[token][i];
    });
  }
  step_.for_tokens(model_.hidden * int64_t(sizeof(float)),
                   [&](int token, int) { combine(sublayer, token, scheme.residual != PassResidual::kInner); });
}

// As if its output were 0.
void Executor::leave_out(const Sublayer& sublayer) {
  if (sublayer.deferred || (sublayer.base.empty() && !sublayer.base_is_normed)) return;
  normalise(sublayer.norm, hidden_, normed_);
  for (int token = 0; token < step_.count; ++token)
    for (int i = 0; i < model_.hidden; ++i)
      hidden_[token][i] = (sublayer.base.empty() ? 1.0f : sublayer.base[i]) * (sublayer.base_is_normed ? normed_ : hidden_)[token][i];
}

void Executor::run_op(const Sublayer& sublayer, const Sum& sum) {
  const float* const* in = normed_rows_.data();
  if (const auto* attention = std::get_if<Attention>(&sublayer.op))
    grouped_.run(step_, *attention, in, sum);
  else if (const auto* latent = std::get_if<LatentAttention>(&sublayer.op))
    latent_.run(step_, *latent, in, sum);
  else
    feed_forward_.run(step_, std::get<FeedForward>(sublayer.op), in, sum);
}

// What was made joins the residual of one token, or waits for the end of the layer.
void Executor::combine(const Sublayer& sublayer, int token, bool onto_base) {
  float *made = made_[token], *hidden = hidden_[token];
  const float* base = sublayer.base_is_normed ? normed_[token] : hidden;
  step_.normalise(sublayer.post_norm, made, made, model_.hidden);
  if (sublayer.deferred) {
    for (int i = 0; i < model_.hidden; ++i) deferred_[token][i] += sublayer.scale * made[i];
  } else if (!onto_base) {
    for (int i = 0; i < model_.hidden; ++i) hidden[i] = sublayer.scale * made[i];
  } else if (sublayer.base.empty()) {
    for (int i = 0; i < model_.hidden; ++i) hidden[i] = base[i] + sublayer.scale * made[i];
  } else {
    for (int i = 0; i < model_.hidden; ++i) hidden[i] = sublayer.base[i] * base[i] + sublayer.scale * made[i];
  }
}

void Executor::normalise(const Norm& norm, Rows& from, Rows& to, int first) {
  step_.for_tokens(
      model_.hidden * int64_t(sizeof(float)),
      [&](int token, int) { step_.normalise(norm, from[token], to[token], model_.hidden); }, first);
}

void Executor::write_logits() {
  const Chunk& chunk = *step_.chunk;
  if (chunk.rows == LogitRows::kNone) return;
  const int first = chunk.rows == LogitRows::kLast ? step_.count - 1 : 0, rows = step_.count - first;
  normalise(model_.final_norm, hidden_, normed_, first);
  for (int token = first; !model_.lm_head_column.empty() && token < step_.count; ++token)
    for (int i = 0; i < model_.hidden; ++i) normed_[token][i] *= model_.lm_head_column[i];
  logit_rows_.resize(rows);
  for (int row = 0; row < rows; ++row) logit_rows_[row] = chunk.logits + size_t(row) * model_.vocab;
  const std::array products{Product{&model_.lm_head, {rows, normed_rows_.data() + first, logit_rows_.data(), nullptr}}};
  step_.multiply(products);
  const std::vector<float>& bias = model_.lm_head_bias;
  if (bias.empty() && model_.logit_scale == 1) return;
  for (float* logits : logit_rows_)
    for (int i = 0; i < model_.vocab; ++i)
      logits[i] = (logits[i] + (bias.empty() ? 0.0f : bias[i])) * model_.logit_scale;
}

}  // namespace switchyard::cpu

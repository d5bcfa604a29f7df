// The judge: any plan in LibTorch, fp32. This file is the module's entry and the loop over the layers.
// forward() runs on the engine thread; ATen's own threads work inside.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "engine/backend/differentiable.h"
#include "engine/backend/expert_probe.h"
#include "engine/backend/layer_probe.h"
#include "engine/backend/reference/entry.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/request.h"
#include "engine/model/linears.h"
#include "engine/routing/decision.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kLogitChunk = 256;  // rows of the head at a time

// Exceptions of LibTorch and of allocation end here.
template <class Work>
auto guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const LoadError& failed) {
    return tl::unexpected<Error>(failed.error);
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (what.find("allocate memory") != std::string::npos) {
      return fail(ErrorCode::kMemory, "not enough memory: " + what, {}, "Use a smaller context or the cpu backend.");
    }
    return fail(ErrorCode::kInternal, "LibTorch: " + what);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kMemory, "not enough memory.", {}, "Use a smaller context or the cpu backend.");
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, error.what());
  }
}

// Grows on demand, so that a large context costs nothing until it is used.
class ReferenceCache final : public KvCache {
 public:
  ReferenceCache(const ModelPlan& plan, int capacity) : plan_(&plan), capacity_(capacity) {
    for (const LayerPlan& layer : plan.layers) states_.emplace_back(layer.sublayers.size());
  }

  int length() const override { return length_; }
  int capacity() const override { return capacity_; }

  int truncate(int length) override {
    length = length < encoded() ? 0 : std::clamp(length, 0, length_);
    if (plan_->recurrent() && length < length_) {
      while (!marks_.empty() && marks_.back().length > length) marks_.pop_back();
      length = marks_.empty() ? 0 : marks_.back().length;
      for (size_t i = 0; i < states_.size(); ++i)
        for (size_t j = 0; j < states_[i].size(); ++j) {
          states_[i][j].recurrent = marks_.empty() ? at::Tensor() : marks_.back().states[i][j].recurrent;
          states_[i][j].conv = marks_.empty() ? at::Tensor() : marks_.back().states[i][j].conv;
        }
    }
    routers_.truncate(uint64_t(length));
    choices_.truncate(length);
    return length_ = length;
  }

  // nullptr: not enough memory.
  std::unique_ptr<KvCache> clone() const override {
    try {
      const c10::InferenceMode mode;
      auto copy = std::make_unique<ReferenceCache>(*this);
      const auto cut = [&](at::Tensor& t) {
        if (t.defined()) t = t.narrow(1, 0, length_ - encoded()).clone(at::MemoryFormat::Contiguous);
      };
      for (size_t i = 0; i < states_.size(); ++i)
        for (size_t j = 0; j < states_[i].size(); ++j) {
          const auto& sublayers = plan_->layers[i].sublayers;
          const auto* attention = std::get_if<AttentionSpec>(&sublayers[j % sublayers.size()].op);
          if (attention && attention->cross) continue;  // never written again
          cut(copy->states_[i][j].keys);
          cut(copy->states_[i][j].values);
        }
      return copy;
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  uint64_t bytes() const override {
    uint64_t total = 0;
    const auto add = [&](const at::Tensor& tensor) { total += tensor.defined() ? tensor.nbytes() : 0; };
    add(memory_);
    for (const auto& layer : states_)
      for (const OpState& state : layer)
        for (const at::Tensor* tensor : {&state.keys, &state.values, &state.recurrent, &state.conv}) add(*tensor);
    for (const Mark& mark : marks_)
      for (const auto& layer : mark.states)
        for (const OpState& state : layer) add(state.recurrent), add(state.conv);
    return total + routers_.bytes();
  }

  bool is_of(const ModelPlan& plan) const { return plan_ == &plan; }
  std::span<const uint8_t> path() const override { return path_; }
  // The cache is empty.
  void lay_out(const Recipe& recipe) {
    if (recipe.path.passes == path_) return;
    path_ = recipe.path.passes;
    forget_states();
    for (size_t i = 0; i < states_.size(); ++i)
      states_[i].resize(plan_->layers[i].sublayers.size() * size_t(std::max(1, recipe.passes_of(int(i)))));
  }
  OpState& state(size_t layer, size_t sublayer, int pass) {
    return states_[layer][size_t(pass) * plan_->layers[layer].sublayers.size() + sublayer];
  }
  void advance(int tokens) {
    length_ += tokens;
    if (plan_->recurrent()) mark();
  }

  // Encoder-decoder: what the encoder made of its tokens, and their number.
  const at::Tensor& memory() const { return memory_; }
  int encoded() const { return length_ > 0 && memory_.defined() ? int(memory_.size(0)) : 0; }
  void remember(const at::Tensor& memory) {
    memory_ = memory;
    length_ = int(memory.size(0));
    forget_states();
  }
  void forget_states() {
    for (auto& layer : states_) std::fill(layer.begin(), layer.end(), OpState{});
  }

  // What the routers left for later tokens.
  TokenMemory& routers() { return routers_; }

  // What a failed forward() puts back. Tensors are shared: recurrent state is replaced, never changed in place, and
  // keys and values are only written behind the length.
  using States = std::vector<std::vector<OpState>>;
  const States& states() const { return states_; }
  void put_back(States states) {
    states_ = std::move(states);
    routers_.truncate(uint64_t(length_));
    choices_.truncate(length_);
  }
  SequenceChoices& choices() { return choices_; }

 private:
  // Recurrent state after `length` tokens, kept so that the cache can be cut back to there.
  struct Mark {
    int length = 0;
    States states;  // recurrent and conv only
  };

  // At the end of a forward(), when the last mark is far enough away. Of too many every second one is dropped.
  void mark() {
    constexpr size_t kMarks = 16;
    if (length_ - (marks_.empty() ? 0 : marks_.back().length) < spacing_) return;
    if (marks_.size() == kMarks) {
      for (size_t i = 0; i < kMarks / 2; ++i) marks_[i] = std::move(marks_[2 * i + 1]);
      marks_.resize(kMarks / 2);
      spacing_ *= 2;
    }
    Mark mark{.length = length_};
    for (const auto& layer : states_) {
      mark.states.emplace_back();
      for (const OpState& state : layer)
        mark.states.back().push_back({.recurrent = state.recurrent, .conv = state.conv});
    }
    marks_.push_back(std::move(mark));
  }

  const ModelPlan* plan_;
  int length_ = 0, capacity_ = 0;
  at::Tensor memory_;        // of the encoder
  std::vector<uint8_t> path_;
  TokenMemory routers_;
  SequenceChoices choices_;
  States states_;            // [layer][pass * sublayers + sublayer]
  std::vector<Mark> marks_;  // rising; only where the plan is recurrent
  int spacing_ = 32;         // tokens between two marks, at least
};

class ReferenceBackend final : public Backend, public Differentiable, public ExpertProbe, public LayerProbe {
 public:
  ReferenceBackend(const ModelPlan& plan, const WeightStore& weights, int threads, Task* task) : plan_(plan) {
    set_threads(threads);
    Loader load(weights, task);
    embedding_ = load.matrix(plan.embedding);
    decoder_embedding_ = plan.decoder_embedding ? load.matrix(plan.decoder_embedding) : embedding_;
    head_ = plan.tied ? embedding_ : load.matrix(plan.lm_head);
    if (plan.normalised_head) head_ = head_ / (head_.square().sum(0, true).sqrt() + 1e-7);
    head_bias_ = load.vector(plan.lm_head_bias);
    final_norm_ = load.norm(plan.final_norm);
    encoder_norm_ = load.norm(plan.encoder_norm);
    int places = 0;
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      if (task) task->report(double(i) / double(plan_.layers.size()), "Copying weights to fp32");
      layers_.emplace_back();
      for (const Sublayer& sublayer : plan_.layers[i].sublayers) {
        layers_.back().push_back({load.norm(sublayer.norm), make_op(sublayer.op, load), load.norm(sublayer.post_norm),
                                  load.vector(sublayer.base_weight), row_of(sublayer), places});
        places += places_of(sublayer.op);
      }
    }
    if (auto unchanged = weights.check_unchanged(); !unchanged) throw LoadError{unchanged.error()};
    if (task) task->report(1, "Weights copied");
  }

  BackendInfo info() const override {
    const int threads = threads_;
    return {"reference", "LibTorch fp32, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads"), {}};
  }

  std::unique_ptr<KvCache> new_cache(int capacity) const override {
    return std::make_unique<ReferenceCache>(plan_, capacity);
  }

  void set_threads(int threads) override {
    threads_ = threads > 0 ? threads : std::max(1, int(std::thread::hardware_concurrency()));
  }

  Result<void> forward(const ForwardRequest& request) override {
    SY_CHECK(check_request(plan_, request));
    auto* cache = dynamic_cast<ReferenceCache*>(request.cache);
    if (!cache || !cache->is_of(plan_)) return fail(ErrorCode::kInternal, "the cache belongs to another backend.");
    if (cache->length() == 0) cache->lay_out(*request.recipe);
    auto before = cache->states();
    Result<void> done = guarded([&]() -> Result<void> { return run(request, *cache); });
    if (!done) cache->put_back(std::move(before));
    if (done) flag_partial(plan_, request);
    return done;
  }

  Result<std::vector<float>> expert_outputs(int row, std::span<const float> inputs) override {
    const RoutingRow& at = plan_.rows[size_t(row)];
    const Op& op = *layers_[size_t(at.layer)][size_t(at.sublayer)].op;
    return guarded([&]() -> Result<std::vector<float>> {
      const c10::InferenceMode inference;
      at::set_num_threads(threads_);
      const at::Tensor x = at::from_blob(const_cast<float*>(inputs.data()), {int64_t(inputs.size()) / plan_.hidden, plan_.hidden});
      const at::Tensor y = op.all_experts(x);
      if (!y.defined()) return fail(ErrorCode::kUsage, "the experts of " + plan_.row_name(row) + " have no outputs of their own: they weigh their input, or are part of the attention.");
      const at::Tensor values = y.contiguous();
      return std::vector<float>(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
    });
  }

  Result<void> lens(std::span<const TokenId> tokens, const Recipe& recipe, size_t first, const See& see, const Task* task) override {
    if (plan_.encoder_layers > 0) return fail(ErrorCode::kUsage, "the logit lens knows no encoder-decoders.");
    ReferenceCache cache(plan_, int(tokens.size()));
    const ForwardRequest request{.tokens = tokens, .cache = &cache, .recipe = &recipe, .rows = LogitRows::kNone, .task = task};
    SY_CHECK(check_request(plan_, request));
    cache.lay_out(recipe);
    const ShowStream show = [&](const Place& place, const at::Tensor& h) {
      for (int64_t token = int64_t(first); token < h.size(0); token += kLogitChunk) {
        const at::Tensor logits = logits_of(h.narrow(0, token, std::min(kLogitChunk, h.size(0) - token)));
        see(place, size_t(token), {logits.const_data_ptr<float>(), size_t(logits.numel())});
      }
    };
    return guarded([&]() -> Result<void> { return run(request, cache, &show); });
  }

  Result<BiasGradient> bias_gradient(std::span<const TokenId> tokens, const Recipe& recipe, int loss_tokens, const Task* task) override {
    return with_gradients<BiasGradient>(tokens, recipe, task, [&](const ForwardRequest& request, ReferenceCache& cache) -> Result<BiasGradient> {
      std::vector<at::Tensor> biases;
      SY_TRY(const double loss, differentiate(request, cache, loss_tokens, biases, nullptr));
      BiasGradient out{.loss = loss};
      for (const at::Tensor& bias : biases) {
        const at::Tensor gradient = bias.grad().defined() ? bias.grad().contiguous() : at::zeros_like(bias);
        const auto values = floats(gradient);
        out.by_row.emplace_back(values.begin(), values.end());
      }
      return out;
    });
  }

  Result<std::vector<GateTerms>> gate_terms(std::span<const TokenId> tokens, const Recipe& recipe, const Task* task) override {
    for (int row = 0; row < int(plan_.rows.size()); ++row) SY_CHECK(check_softmax(row));
    if (!recipe.path.native())
      return fail(ErrorCode::kUsage, "the gradient lens knows no layer paths: a skipped layer decides nothing, a repeated one more than once.", {}, "Leave the path out.");
    using Terms = std::vector<GateTerms>;
    return with_gradients<Terms>(tokens, recipe, task, [&](const ForwardRequest& request, ReferenceCache& cache) -> Result<Terms> {
      std::vector<at::Tensor> biases;
      std::vector<LensRow> lens(plan_.rows.size());
      SY_CHECK(differentiate(request, cache, 0, biases, &lens));
      const c10::AutoGradMode no_grad(false);
      Terms out;
      for (size_t row = 0; row < lens.size(); ++row) {
        if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped before routing row " + std::to_string(row) + ".");
        GateTerms terms{.renormalised = plan_.routed(int(row)).router.score == ScoreFn::kSoftmaxTopK ||
                                        plan_.routed(int(row)).router.renorm == Renorm::kSum};
        const LensRow& kept = lens[row];
        const auto copy = [](at::Tensor from, std::vector<float>& to) {
          from = from.contiguous();
          to.assign(from.const_data_ptr<float>(), from.const_data_ptr<float>() + from.numel());
        };
        copy(kept.logits.softmax(-1), terms.scores);
        const at::Tensor gradient = kept.routed.grad();
        copy(kept.gains(gradient.defined() ? gradient : at::zeros_like(kept.routed)), terms.gains);
        const at::Tensor selected = kept.selected.to(at::kByte).contiguous();
        terms.selected.assign(selected.const_data_ptr<uint8_t>(), selected.const_data_ptr<uint8_t>() + selected.numel());
        out.push_back(std::move(terms));
        lens[row] = {};
      }
      return out;
    });
  }

 private:
  template <class Out, class Work>
  Result<Out> with_gradients(std::span<const TokenId> tokens, const Recipe& recipe, const Task* task, Work&& work) {
    SY_CHECK(check_differentiable(recipe));
    ReferenceCache cache(plan_, int(tokens.size()));
    const ForwardRequest request{.tokens = tokens, .cache = &cache, .recipe = &recipe, .rows = LogitRows::kNone, .task = task};
    SY_CHECK(check_request(plan_, request));
    if (tokens.size() < 2) return fail(ErrorCode::kUsage, "a gradient needs at least two tokens.");
    cache.lay_out(recipe);
    return guarded([&]() -> Result<Out> { return work(request, cache); });
  }

  // Not a router of experts in the attention.
  bool feeds_forward(int row) const {
    const RoutingRow& at = plan_.rows[size_t(row)];
    return std::holds_alternative<MoeSpec>(plan_.layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op);
  }

  Result<void> check_softmax(int row) const {
    const RouterSpec& router = plan_.routed(row).router;
    const bool softmax = (router.score == ScoreFn::kSoftmaxAll && (router.renorm == Renorm::kNone || router.renorm == Renorm::kSum)) ||
                         (router.score == ScoreFn::kSoftmaxTopK && router.renorm == Renorm::kNone);
    if (!softmax || router.apply == ApplyTo::kInput || !feeds_forward(row))
      return fail(ErrorCode::kUsage, "the weights of " + plan_.row_name(row) + " are not softmax probabilities of its experts' outputs; the lens knows no others.");
    return {};
  }

  Result<void> check_differentiable(const Recipe& recipe) const {
    if (!recipe.adapters.empty())
      return fail(ErrorCode::kUsage, "gradients are not available under adapters, whose routers are not differentiable here.", {},
                  "Use the method spsa.");
    if (plan_.encoder_layers > 0 || plan_.recurrent())
      return fail(ErrorCode::kUsage, "gradients are not available for encoder-decoders and recurrent mixers.");
    for (int row = 0; row < int(plan_.rows.size()); ++row) {
      const RouterSpec& router = plan_.routed(row).router;
      if (router.score == ScoreFn::kSparseMixer || router.product_key || router.capacity != Capacity::kNone || !feeds_forward(row))
        return fail(ErrorCode::kUsage, "the router of " + plan_.row_name(row) + " is not differentiable here.");
      if (const LayerRecipe* layer = recipe.layer(row); layer && layer->scheme)
        return fail(ErrorCode::kUsage, "the scheme of " + plan_.row_name(row) + " is not differentiable here.", {},
                    "Use the method spsa.");
    }
    return {};
  }

  // Forward and backward: the loss, and gradients in `biases`, made here, and in `lens` where it is wanted.
  Result<double> differentiate(const ForwardRequest& request, ReferenceCache& cache, int loss_tokens, std::vector<at::Tensor>& biases,
                               std::vector<LensRow>* lens) {
    const c10::AutoGradMode grad(true);
    at::set_num_threads(threads_);
    for (int row = 0; row < int(plan_.rows.size()); ++row) {
      at::Tensor bias = at::zeros({plan_.routed(row).router.experts});
      if (const LayerRecipe* layer = request.recipe->layer(row); layer && !layer->logit_bias.empty())
        std::copy(layer->logit_bias.begin(), layer->logit_bias.end(), bias.data_ptr<float>());
      biases.push_back(bias.set_requires_grad(true));
    }
    Step step{.length = int64_t(request.tokens.size()),
              .recipe = request.recipe,
              .tokens = request.tokens,
              .model_routers = int(plan_.rows.size()),
              .biases = &biases,
              .lens = lens};
    at::Tensor x = embed(embedding_, request.tokens, 0);
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (request.task && request.task->cancelled())
        return fail(ErrorCode::kCancelled, "stopped before layer " + std::to_string(i) + ".");
      x = repeat_layer(i, x, cache, step);
    }
    const int64_t last = int64_t(request.tokens.size()) - 1, count = loss_tokens > 0 ? std::min<int64_t>(loss_tokens, last) : last;
    const at::Tensor targets = at::from_blob(const_cast<TokenId*>(request.tokens.data() + 1), {last},
                                             at::TensorOptions().dtype(at::kInt))
                                   .to(at::kLong);
    at::Tensor loss = at::zeros({});
    for (int64_t from = last - count; from < last; from += kLogitChunk) {
      const int64_t rows = std::min(kLogitChunk, last - from);
      const at::Tensor logits = logits_of(x.narrow(0, from, rows));
      loss = loss - logits.log_softmax(-1).gather(1, targets.narrow(0, from, rows).unsqueeze(1)).sum();
    }
    loss = loss / double(count);
    loss.backward();
    return double(loss.item<float>());
  }

  Result<void> run(const ForwardRequest& request, ReferenceCache& cache, const ShowStream* see = nullptr) {
    const c10::InferenceMode mode;
    at::set_num_threads(threads_);
    const int64_t past = cache.length() - cache.encoded();
    RouterStates states;
    std::vector<AdapterRow> adapters;
    if (!request.frames.empty()) adapters = adapter_rows(plan_, *request.recipe);
    Step step{.past = past,
              .length = std::max<int64_t>(past + int64_t(request.tokens.size()), request.sequence),
              .recipe = request.recipe,
              .tokens = request.tokens,
              .first_index = request.encode ? 0 : uint64_t(cache.length()),
              .stream = request.stream,
              .frames = request.frames,
              .states = &states,
              .routers = &cache.routers(),
              .tap = request.tap,
              .choices = &cache.choices(),
              .units = request.units,
              .prompt = uint64_t(request.prompt),
              .adapter_log = request.adapter_log,
              .adapter_rows = adapters,
              .model_routers = int(plan_.rows.size()),
              .experts_off = request.experts_off,
              .see = see};
    if (request.encode)
      cache.forget_states();
    else
      step.memory = cache.memory();
    const bool part = !request.hidden.empty();
    const std::vector<int64_t> shape{int64_t(request.tokens.size()), int64_t(plan_.hidden)};
    at::Tensor x = part && request.first_layer > 0
                       ? at::from_blob(request.hidden.data(), shape, at::TensorOptions().dtype(at::kFloat)).clone()
                       : embed(request.encode ? embedding_ : decoder_embedding_, request.tokens, step.past);
    const auto encoder = size_t(plan_.encoder_layers);
    const size_t end = request.encode ? encoder : size_t(end_layer(plan_, request));
    for (size_t i = request.encode ? 0 : std::max(encoder, size_t(request.first_layer)); i < end; ++i) {
      if (request.task && request.task->cancelled())
        return fail(ErrorCode::kCancelled, "stopped before layer " + std::to_string(i) + ".");
      x = repeat_layer(i, x, cache, step);
    }
    if (request.encode) {
      cache.remember(encoder_norm_(x));
      return {};
    }
    if (part) std::memcpy(request.hidden.data(), x.contiguous().const_data_ptr<float>(), size_t(x.numel()) * sizeof(float));
    write_logits(request, x);
    cache.advance(int(request.tokens.size()));
    return {};
  }

  // [tokens, hidden]; past: tokens of the same side before them.
  at::Tensor embed(const at::Tensor& table, std::span<const TokenId> tokens, int64_t past) const {
    const at::Tensor ids = at::from_blob(const_cast<TokenId*>(tokens.data()), {int64_t(tokens.size())},
                                         at::TensorOptions().dtype(at::kInt));
    at::Tensor x = table.index_select(0, ids);
    if (plan_.embedding_scale != 1) x = x * plan_.embedding_scale;
    return plan_.sinusoidal_positions ? x + sinusoids(ids, past, plan_.padding_id, plan_.hidden) : x;
  }

  // The layer as often as the path says.
  at::Tensor repeat_layer(size_t layer, at::Tensor h, ReferenceCache& cache, Step step) const {
    const int passes = step.recipe->passes_of(int(layer));
    for (step.layer_pass = 0; step.layer_pass < passes; ++step.layer_pass) h = run_layer(layer, h, cache, step);
    return h;
  }

  // See Sublayer in plan.h.
  at::Tensor run_layer(size_t layer, at::Tensor h, ReferenceCache& cache, Step step) const {
    at::Tensor deferred;
    AttentionRows attention;
    step.attention = &attention;
    for (size_t i = 0; i < layers_[layer].size(); ++i) {
      const Sublayer& spec = plan_.layers[layer].sublayers[i];
      const Loaded& loaded = layers_[layer][i];
      step.row = loaded.row;
      if (mixes(spec)) {
        attention.window = attention_window(layer, i, step);
        if (attention.window > 0) attention.shares = at::zeros({h.size(0), attention.window});
      }
      step.place = loaded.place;
      const at::Tensor x = loaded.norm(h);
      const LayerRecipe* recipe = step.row < 0 ? nullptr : step.recipe->layer(step.row);
      const bool off = !step.experts_off.empty() && step.experts_off[layer] && std::holds_alternative<MoeSpec>(spec.op);
      const bool in_passes = recipe && !off && runs_in_passes(recipe->scheme);
      const bool plain = spec.post_norm.kind == NormKind::kNone && spec.base_scale == 1 && !loaded.base_weight.defined() && !spec.base_is_normed && !spec.deferred;
      step.residual = plain && !in_passes ? &h : nullptr;
      step.scale = spec.scale;
      OpState& state = cache.state(layer, i, step.layer_pass);
      at::Tensor y;
      if (!off) {
        y = loaded.post_norm(in_passes ? run_passes(*loaded.op, x, state, step, recipe->scheme.stages) : loaded.op->run(x, state, step));
        if (spec.scale != 1) y = y * spec.scale;
      }
      if (spec.deferred) {
        if (!off) deferred = deferred.defined() ? deferred + y : y;
      } else if (in_passes && recipe->scheme.stages.residual == PassResidual::kInner) {
        h = y;
      } else {
        at::Tensor base = spec.base_is_normed ? x : h;
        if (spec.base_scale != 1) base = base * spec.base_scale;
        if (loaded.base_weight.defined()) base = base * loaded.base_weight;
        h = off ? base : base + y;
      }
      if (deferred.defined() && i + 1 == layers_[layer].size()) h = h + deferred;
      if (step.see) (*step.see)({int(layer), int(i), step.layer_pass}, h);
    }
    return h;
  }

  static bool mixes(const Sublayer& sublayer) {
    return !std::holds_alternative<FfnSpec>(sublayer.op) && !std::holds_alternative<MoeSpec>(sublayer.op);
  }

  // How many tokens back the routers between this mixer and the next one follow its attention; 0: none does.
  int64_t attention_window(size_t layer, size_t mixer, const Step& step) const {
    int64_t window = 0;
    for (size_t i = mixer + 1; i < layers_[layer].size() && !mixes(plan_.layers[layer].sublayers[i]); ++i) {
      const int row = layers_[layer][i].row;
      const LayerRecipe* own = row >= 0 ? step.recipe->layer(row) : nullptr;
      if (own && own->scheme && own->scheme.stages.mixing == Mixing::kAttention)
        window = std::max<int64_t>(window, own->scheme.stages.window);
    }
    return std::min<int64_t>(window, step.past + int64_t(step.tokens.size()));
  }

  // See PassResidual: what a layer that runs in passes adds to the residual, or puts in its place.
  static at::Tensor run_passes(const Op& op, at::Tensor x, OpState& state, Step step, const Stages& scheme) {
    at::Tensor sum;
    for (step.pass = 0; step.pass < scheme.passes; ++step.pass) {
      const at::Tensor y = op.run(x, state, step);
      x = scheme.residual == PassResidual::kOuter ? y : x + y;
      sum = sum.defined() ? sum + y : y;
    }
    return scheme.residual == PassResidual::kSum ? sum : x;
  }

  int row_of(const Sublayer& sublayer) const {
    for (size_t row = 0; row < plan_.rows.size(); ++row)
      if (&plan_.routed(int(row)) == sublayer.routed()) return int(row);
    return -1;
  }

  // [tokens, vocab], contiguous.
  at::Tensor logits_of(const at::Tensor& h) const {
    const at::Tensor logits = project(final_norm_(h), head_, head_bias_);
    return (plan_.logit_scale != 1 ? logits * plan_.logit_scale : logits).contiguous();
  }

  void write_logits(const ForwardRequest& request, const at::Tensor& x) const {
    if (request.rows == LogitRows::kNone) return;
    const int64_t end = x.size(0), begin = request.rows == LogitRows::kLast ? end - 1 : 0;
    float* out = request.logits.data();
    for (int64_t from = begin; from < end; from += kLogitChunk) {
      const at::Tensor logits = logits_of(x.narrow(0, from, std::min(kLogitChunk, end - from)));
      std::memcpy(out, logits.const_data_ptr<float>(), logits.nbytes());
      out += logits.numel();
    }
  }

  struct Loaded {
    Norm norm;
    std::unique_ptr<Op> op;
    Norm post_norm;
    at::Tensor base_weight;
    int row = -1;   // routing row; -1: none
    int place = 0;  // of its first linear
  };

  const ModelPlan plan_;
  at::Tensor embedding_, decoder_embedding_, head_, head_bias_;
  Norm final_norm_, encoder_norm_;
  std::vector<std::vector<Loaded>> layers_;  // [layer][sublayer]
  std::atomic<int> threads_{1};
};

}  // namespace

extern "C" [[gnu::visibility("default")]] uint64_t switchyard_reference_open(ReferenceOpen* open) {
  if (open->layout != kReferenceLayout) return kReferenceLayout;
  open->backend = guarded([&]() -> Result<std::unique_ptr<Backend>> {
    const c10::NoGradGuard mode;  // plain tensors, which a graph may keep
    return std::make_unique<ReferenceBackend>(*open->plan, *open->weights, open->options.threads, open->task);
  });
  return kReferenceLayout;
}

}  // namespace switchyard::reference

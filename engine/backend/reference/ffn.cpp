// Feed-forward blocks: dense, and experts behind a router (FfnSpec, MoeSpec). Specs/families.md, section 2;
// the formula of each kind stands at FfnKind in plan.h.
#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_fill.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/backend/merged_cache.h"
#include "engine/backend/reference/adapters.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/mixing.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/router.h"
#include "engine/model/linears.h"
#include "engine/model/quantised.h"
#include "engine/routing/block.h"
#include "engine/routing/slices.h"

namespace switchyard::reference {
namespace {

// Absent: undefined.
at::Tensor view(const ExpertTensors::Tensor& tensor) {
  if (!tensor) return {};
  float* data = const_cast<float*>(tensor.values.data());
  return tensor.cols > 0 ? at::from_blob(data, {tensor.rows, tensor.cols}) : at::from_blob(data, {tensor.rows});
}

// One GRU step from the state 0, and the projection of the new state.
at::Tensor gru(const ExpertTensors& t, const at::Tensor& x) {
  const auto with = [](at::Tensor y, const ExpertTensors::Tensor& bias) { return bias ? y + view(bias) : y; };
  const at::Tensor r = with(project(x, view(t.ir), view(t.b_ir)), t.b_hr).sigmoid();
  const at::Tensor update = with(project(x, view(t.iz), view(t.b_iz)), t.b_hz).sigmoid();
  at::Tensor n = project(x, view(t.in), view(t.b_in));
  if (t.b_hn) n = n + r * view(t.b_hn);
  return project((1 - update) * n.tanh(), view(t.down), view(t.down_bias));
}

// One block with its weights.
class Feed {
 public:
  Feed(const FfnShape& shape, const FfnWeights& w, const Loader& load)
      : shape_(shape),
        gate_(load.matrix(w.gate)),
        up_(load.matrix(w.up)),
        down_(load.matrix(w.down)),
        gate_bias_(load.vector(w.gate_bias)),
        up_bias_(load.vector(w.up_bias)),
        down_bias_(load.vector(w.down_bias)),
        type_(exact_dtype(w.down)),
        bias_type_(w.down_bias ? exact_dtype(w.down_bias) : DType::kF32) {}

  // The weighted sum of these experts.
  Feed(const ExpertMix& mix, const std::vector<Feed>& experts)
      : shape_(experts[0].shape_),
        gate_(mixed(mix, experts, &Feed::gate_)),
        up_(mixed(mix, experts, &Feed::up_)),
        down_(mixed(mix, experts, &Feed::down_)),
        gate_bias_(mixed(mix, experts, &Feed::gate_bias_)),
        up_bias_(mixed(mix, experts, &Feed::up_bias_)),
        down_bias_(mixed(mix, experts, &Feed::down_bias_)),
        type_(experts[0].type_),
        bias_type_(experts[0].bias_type_) {}

  // A swiglu or gelu_mlp of a file, which must outlive it.
  explicit Feed(const ExpertTensors& t)
      : shape_{.kind = t.gate ? FfnKind::kGlu : FfnKind::kMlp, .activation = t.gate ? Activation::kSilu : Activation::kGelu, .width = int(t.width())},
        gate_(view(t.gate)),
        up_(view(t.up)),
        down_(view(t.down)),
        gate_bias_(view(t.gate_bias)),
        up_bias_(view(t.up_bias)),
        down_bias_(view(t.down_bias)),
        type_(DType::kF32),
        bias_type_(DType::kF32) {}

  // here: its first linear. off: hidden units that are switched off.
  at::Tensor operator()(const at::Tensor& x, const Here& here, const std::vector<int>& off = {}) const {
    return finish(units(x, here, off), here);
  }
  at::Tensor units(const at::Tensor& x, const Here& here, const std::vector<int>& off = {}) const {
    const at::Tensor hidden = inner(x, here);
    return off.empty() ? hidden : hidden.index_fill(-1, at::tensor(std::vector<int64_t>(off.begin(), off.end())), 0);
  }
  at::Tensor finish(const at::Tensor& units, const Here& here) const {
    if (shape_.kind == FfnKind::kRankOne) return units * down_;
    return project(units, down_, down_bias_, at_place(here, kPlaceFfnDown));
  }

 private:
  static Here at_place(Here here, FfnPlace place) {
    here.place += place;
    return here;
  }

  // What the down projection takes: [tokens, width].
  at::Tensor inner(const at::Tensor& x, const Here& here) const {
    const auto gate = [&](const at::Tensor& in) { return project(in, gate_, gate_bias_, at_place(here, kPlaceFfnGate)); };
    const auto up = [&](const at::Tensor& in) { return project(in, up_, up_bias_, at_place(here, kPlaceFfnUp)); };
    switch (shape_.kind) {
      case FfnKind::kGlu:
        return activate(shape_.activation, gate(x)) * up(x);
      case FfnKind::kGluOss: {
        const at::Tensor g = gate(x).clamp_max(shape_.limit);
        return (up(x).clamp(-shape_.limit, shape_.limit) + 1) * g * (g * shape_.alpha).sigmoid();
      }
      case FfnKind::kGluDouble: {
        const at::Tensor both = gate(x), b = both.narrow(-1, shape_.width, shape_.width);
        return both.narrow(-1, 0, shape_.width) * b * b.sigmoid() * up(x);
      }
      case FfnKind::kMlp:
        return activate(shape_.activation, up(x));
      case FfnKind::kRankOne:
        return activate(shape_.activation, gate(x));
    }
    return x;
  }

  static at::Tensor mixed(const ExpertMix& mix, const std::vector<Feed>& experts, const at::Tensor Feed::*part) {
    const Feed& first = experts[mix[0].expert];
    const bool bias = part == &Feed::gate_bias_ || part == &Feed::up_bias_ || part == &Feed::down_bias_;
    return mix_tensors(mix, bias ? first.bias_type_ : first.type_,
                       [&](ExpertId id) -> const at::Tensor& { return experts[id].*part; });
  }

  const FfnShape shape_;
  const at::Tensor gate_, up_, down_, gate_bias_, up_bias_, down_bias_;
  const DType type_, bias_type_;  // as stored
};

class Ffn final : public Op {
 public:
  Ffn(const FfnSpec& spec, const Loader& load) : feed_(spec, spec.weights, load) {}
  at::Tensor run(const at::Tensor& x, OpState&, const Step& step) const override { return feed_(x, {&step, step.place}); }

 private:
  const Feed feed_;
};

// Experts add up in order of their id, then what every token gets, so a run repeats bit for bit.
class Moe final : public Op {
 public:
  Moe(const MoeSpec& spec, const Loader& load)
      : router_(spec, load), shared_gate_(load.matrix(spec.shared_gate)), output_bias_(load.vector(spec.output_bias)) {
    for (const FfnWeights& expert : spec.experts) experts_.emplace_back(spec.expert, expert, load);
    if (spec.shared) shared_.emplace(*spec.shared, spec.shared->weights, load);
  }

  at::Tensor run(const at::Tensor& x, OpState&, const Step& step) const override {
    std::vector<Share> shares = router_.route_rows(x, step);
    const LayerRecipe* recipe = step.recipe->layer(step.row);
    LensRow* lens = step.lens ? &(*step.lens)[size_t(step.row)] : nullptr;
    const at::Tensor graph = step.biases ? router_.weights(x, step, shares, lens) : at::Tensor();
    merged_.tidy(recipe);
    at::Tensor out = at::zeros_like(x);
    std::vector<at::Tensor> cut;  // hidden units of each expert's rows under the slices that are on
    if (recipe && cuts_experts(recipe->scheme)) cut = cut_experts(x, step, *recipe, shares);
    for (size_t e = 0; e < shares.size(); ++e) {
      Share& share = shares[e];
      const auto count = int64_t(share.rows.size());
      if (count == 0) continue;
      at::Tensor rows = at::from_blob(share.rows.data(), {count}, at::TensorOptions().dtype(at::kLong));
      if (graph.defined()) rows = rows.clone();  // the graph outlives the shares
      const at::Tensor applied = graph.defined() ? graph.select(1, int64_t(e)).index_select(0, rows).unsqueeze(1)
                                                 : at::from_blob(share.weights.data(), {count, 1});
      const at::Tensor in = x.index_select(0, rows);
      const bool on_input = router_.spec().apply == ApplyTo::kInput;
      const at::Tensor weighed = on_input ? in * applied : in;
      at::Tensor y;
      if (e >= experts_.size()) {  // the last ids have no weights
        y = weighed;
      } else if (recipe && recipe->other(e)) {
        y = other(e, weighed, recipe, here_of(step, e, share.rows));
      } else {
        const Here here = here_of(step, e, share.rows);
        const at::Tensor units = e < cut.size() && cut[e].defined() ? cut[e] : feed(e, recipe).units(weighed, here, off(recipe, e));
        if (step.units) show_units(step, e, share, units);
        y = feed(e, recipe).finish(units, here);
      }
      note_norms(step, e, share.rows, y);
      if (!on_input) y = y * applied;
      if (recipe && !recipe->expert_scale.empty()) y = y * recipe->expert_scale[e];
      if (graph.defined())
        out = out.index_add(0, rows, y);
      else
        out.index_add_(0, rows, y);
    }
    if (lens) {
      out.retain_grad();
      lens->routed = out;
      lens->gains = [this, recipe, in = x.detach()](const at::Tensor& gradient) { return gains(in, gradient, recipe); };
    }
    if (router_.spec().post_scale != 1) out = out * router_.spec().post_scale;
    note_block(step, out);
    if (shared_) {
      const at::Tensor y = (*shared_)(x, {&step, step.place + kFfnPlaces * int(experts_.size())});
      out = out + (shared_gate_.defined() ? y * project(x, shared_gate_).sigmoid() : y);
    }
    return output_bias_.defined() ? out + output_bias_ : out;
  }

  at::Tensor all_experts(const at::Tensor& x) const override {
    std::vector<at::Tensor> columns;
    for (int e = 0; e < router_.spec().experts; ++e) columns.push_back(expert(size_t(e), x, nullptr));
    return router_.spec().apply == ApplyTo::kInput ? at::Tensor() : at::stack(columns, 1);
  }

 private:
  // <gradient, E_i(x)> of every expert with the scales that its weight is multiplied by: [tokens, E].
  at::Tensor gains(const at::Tensor& x, const at::Tensor& gradient, const LayerRecipe* recipe) const {
    std::vector<at::Tensor> columns;
    for (size_t e = 0; e < size_t(router_.spec().experts); ++e) {
      const double scale = router_.spec().scale * (recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[e] : 1.0f);
      columns.push_back((expert(e, x, recipe) * gradient).sum(-1) * scale);
    }
    return at::stack(columns, 1);
  }

  // Without adapters. The last ids have no weights: y = x.
  at::Tensor expert(size_t id, const at::Tensor& x, const LayerRecipe* recipe) const {
    if (id >= experts_.size()) return x;
    if (!recipe || !recipe->other(id)) return feed(id, recipe)(x, {}, off(recipe, id));
    std::vector<int64_t> tokens(size_t(x.size(0)));
    std::iota(tokens.begin(), tokens.end(), int64_t(0));
    return other(id, x, recipe, {nullptr, 0, tokens});
  }

  static const std::vector<int>& off(const LayerRecipe* recipe, size_t id) {
    static const std::vector<int> kNone;
    return recipe ? recipe->unit_mask(id) : kNone;
  }

  static Here here_of(const Step& step, size_t id, std::span<const int64_t> tokens) {
    return {&step, step.place + kFfnPlaces * int(id), tokens};
  }

  static void show_units(const Step& step, size_t id, const Share& share, const at::Tensor& units) {
    const at::Tensor shown = units.contiguous();
    const auto width = size_t(shown.size(1));
    for (size_t i = 0; i < share.rows.size(); ++i)
      step.units->take(step.row, ExpertId(id), int(share.rows[i]), {shown.const_data_ptr<float>() + i * width, width});
  }

  // An expert of another kind, on which no adapters stand. here: of the model's own, beside which a local one stands.
  at::Tensor other(size_t id, const at::Tensor& x, const LayerRecipe* recipe, const Here& here) const {
    const OtherExpert& other = recipe->other(id);
    switch (other.kind) {
      case ExpertKind::kNull: return at::zeros_like(x);
      case ExpertKind::kConstant: return view(other.tensors->constant).expand_as(x);
      case ExpertKind::kGru: return gru(*other.tensors, x);
      case ExpertKind::kSwiglu:
      case ExpertKind::kGeluMlp: return Feed(*other.tensors)(x, {});
      case ExpertKind::kLocal: {
        const ExpertTensors& t = *other.tensors;
        at::Tensor z = x.mv(view(t.gn).reshape({-1}));
        if (t.gn_bias) z = z + view(t.gn_bias);
        const at::Tensor local = z.to(at::kDouble).sigmoid() > 0.5, own = local.logical_not().nonzero().flatten();
        std::vector<int64_t> tokens;
        for (int64_t i = 0; i < own.size(0); ++i) tokens.push_back(here.tokens[size_t(own.const_data_ptr<int64_t>()[i])]);
        const at::Tensor y = Feed(t)(x, {});
        if (tokens.empty()) return y;
        return y.index_copy(0, own, feed(id, recipe)(x.index_select(0, own), {here.step, here.place, tokens}, off(recipe, id)));
      }
      default: return x;
    }
  }

  // The network that runs in the place of an expert that has weights.
  const Feed& feed(size_t id, const LayerRecipe* recipe) const {
    if (!recipe || recipe->mix(id).empty()) return experts_[id];
    const ExpertMix& mix = recipe->mix(id);
    return is_one(mix) ? experts_[mix[0].expert] : merged_.get(mix, [&] { return Feed(mix, experts_); });
  }

  // Union-of-Experts: the units of every expert's rows, those of slices that are off at 0; the slices' decision is
  // recorded. Every slice on gives the same numbers as no slices.
  std::vector<at::Tensor> cut_experts(const at::Tensor& x, const Step& step, const LayerRecipe& recipe,
                                      const std::vector<Share>& shares) const {
    const Stages& s = recipe.scheme.stages;
    const bool on_input = router_.spec().apply == ApplyTo::kInput;
    const int64_t tokens = x.size(0), slices = s.slices;
    std::vector<at::Tensor> units(experts_.size());
    at::Tensor logits;
    const SchemeData* data = recipe.scheme.data.get();
    if (data && !data->slice_gate.empty()) {
      logits = project(x, vector_view(data->slice_gate).view({slices, -1}));
      if (!data->slice_bias.empty()) logits = logits + vector_view(data->slice_bias);
    }
    at::Tensor norms = at::zeros({tokens, slices});
    for (size_t e = 0; e < units.size(); ++e) {
      const auto count = int64_t(shares[e].rows.size());
      if (count == 0) continue;
      const at::Tensor rows = at::from_blob(const_cast<int64_t*>(shares[e].rows.data()), {count}, at::TensorOptions().dtype(at::kLong));
      const at::Tensor weight = vector_view(shares[e].weights).unsqueeze(1), in = x.index_select(0, rows);
      units[e] = feed(e, &recipe).units(on_input ? in * weight : in, here_of(step, e, shares[e].rows), recipe.unit_mask(e));
      const at::Tensor lengths = units[e].reshape({count, slices, -1}).square().sum(-1).sqrt();
      norms.index_add_(0, rows, on_input ? lengths : lengths * weight.abs());
    }
    if (!logits.defined()) logits = norms.clamp_min(1e-30f).log();
    logits = logits.contiguous();
    const std::span<const float> z = floats(logits);
    std::vector<uint8_t> on(size_t(tokens * slices));
    const auto width = size_t(slices);
    for (size_t first = 0; first < size_t(tokens); first += kBlockTokens) {
      const size_t count = std::min<size_t>(kBlockTokens, size_t(tokens) - first);
      const auto block = std::span(on).subspan(first * width, count * width);
      const bool once = s.slice_choice == SliceChoice::kSequence && step.choices;
      if (const auto* chosen = once ? step.choices->find(step.row_in_pass(), recipe.scheme.choice) : nullptr) {
        for (size_t token = 0; token < count; ++token) std::copy(chosen->begin(), chosen->end(), block.begin() + ptrdiff_t(token * width));
        continue;
      }
      choose_slices(s, z.subspan(first * width, count * width), block);
      if (once) step.choices->keep(step.row_in_pass(), recipe.scheme.choice, int(step.first_index + first), {block.begin(), block.begin() + ptrdiff_t(width)});
    }
    record_slices(step, z, on, width);
    const at::Tensor marks = at::from_blob(on.data(), {tokens, slices}, at::TensorOptions().dtype(at::kByte)).to(at::kFloat);
    for (size_t e = 0; e < units.size(); ++e) {
      if (!units[e].defined()) continue;
      const auto count = int64_t(shares[e].rows.size());
      const at::Tensor rows = at::from_blob(const_cast<int64_t*>(shares[e].rows.data()), {count}, at::TensorOptions().dtype(at::kLong));
      units[e] = (units[e].reshape({count, slices, -1}) * marks.index_select(0, rows).unsqueeze(-1)).reshape({count, -1});
    }
    return units;
  }

  static void record_slices(const Step& step, std::span<const float> logits, std::span<const uint8_t> on, size_t slices) {
    std::vector<ExpertId> ids(slices);
    std::vector<float> weights(slices);
    std::vector<SlotKind> kinds(slices);
    for (size_t token = 0; token < step.frames.size(); ++token) {
      const auto z = logits.subspan(token * slices, slices);
      RoutingFrame& frame = step.frames[token];
      const Decision decision = slice_decision(z, on.subspan(token * slices, slices), {ids, weights, kinds});
      frame.record(decision_row(frame.header().moe_layers, step.row, step.recipe->layer(step.row), step.layer_pass, 1), decision, ids, weights, kinds, z);
    }
  }

  static at::Tensor vector_view(const std::vector<float>& values) {
    return at::from_blob(const_cast<float*>(values.data()), {int64_t(values.size())});
  }

  const Router router_;
  const at::Tensor shared_gate_, output_bias_;
  std::vector<Feed> experts_;
  mutable MergedCache<Feed> merged_;
  std::optional<Feed> shared_;
};

}  // namespace

std::unique_ptr<Op> make_ffn(const FfnSpec& spec, Loader& load) {
  return std::make_unique<Ffn>(spec, load);
}

std::unique_ptr<Op> make_moe(const MoeSpec& spec, Loader& load) {
  return std::make_unique<Moe>(spec, load);
}

}  // namespace switchyard::reference

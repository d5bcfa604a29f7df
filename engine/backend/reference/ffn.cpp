// Feed-forward blocks: dense, and experts behind a router (FfnSpec, MoeSpec). Specs/families.md, section 2;
// the formula of each kind stands at FfnKind in plan.h.
#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_fill.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <optional>
#include <vector>

#include "engine/backend/merged_cache.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/mixing.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/router.h"
#include "engine/model/quantised.h"

namespace switchyard::reference {
namespace {

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

  // off: hidden units that are switched off.
  at::Tensor operator()(const at::Tensor& x, const std::vector<int>& off = {}) const {
    at::Tensor hidden = inner(x);
    if (!off.empty()) hidden = hidden.index_fill(-1, at::tensor(std::vector<int64_t>(off.begin(), off.end())), 0);
    if (shape_.kind == FfnKind::kRankOne) return hidden * down_;
    return project(hidden, down_, down_bias_);
  }

 private:
  at::Tensor gate(const at::Tensor& x) const { return project(x, gate_, gate_bias_); }
  at::Tensor up(const at::Tensor& x) const { return project(x, up_, up_bias_); }

  // What the down projection takes: [tokens, width].
  at::Tensor inner(const at::Tensor& x) const {
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
  at::Tensor run(const at::Tensor& x, OpState&, const Step&) const override { return feed_(x); }

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
    const at::Tensor graph = step.biases ? router_.weights(x, step, shares) : at::Tensor();
    merged_.tidy(recipe);
    at::Tensor out = at::zeros_like(x);
    for (size_t e = 0; e < shares.size(); ++e) {
      Share& share = shares[e];
      const auto count = int64_t(share.rows.size());
      if (count == 0) continue;
      at::Tensor rows = at::from_blob(share.rows.data(), {count}, at::TensorOptions().dtype(at::kLong));
      if (graph.defined()) rows = rows.clone();  // the graph outlives the shares
      const at::Tensor applied = graph.defined() ? graph.select(1, int64_t(e)).index_select(0, rows).unsqueeze(1)
                                                 : at::from_blob(share.weights.data(), {count, 1});
      const at::Tensor in = x.index_select(0, rows);
      at::Tensor y = router_.spec().apply == ApplyTo::kInput ? expert(e, in * applied, recipe) : expert(e, in, recipe) * applied;
      if (recipe && !recipe->expert_scale.empty()) y = y * recipe->expert_scale[e];
      if (graph.defined())
        out = out.index_add(0, rows, y);
      else
        out.index_add_(0, rows, y);
    }
    if (router_.spec().post_scale != 1) out = out * router_.spec().post_scale;
    if (shared_) {
      const at::Tensor y = (*shared_)(x);
      out = out + (shared_gate_.defined() ? y * project(x, shared_gate_).sigmoid() : y);
    }
    return output_bias_.defined() ? out + output_bias_ : out;
  }

 private:
  // The last ids have no weights: y = x.
  at::Tensor expert(size_t id, const at::Tensor& x, const LayerRecipe* recipe) const {
    if (id >= experts_.size()) return x;
    if (!recipe) return experts_[id](x);
    const ExpertMix& mix = recipe->mix(id);
    const Feed& feed = mix.empty()   ? experts_[id]
                       : is_one(mix) ? experts_[mix[0].expert]
                                     : merged_.get(mix, [&] { return Feed(mix, experts_); });
    return feed(x, recipe->unit_mask(id));
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

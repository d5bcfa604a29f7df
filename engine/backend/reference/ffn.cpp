// Feed-forward blocks: dense, and experts behind a router (FfnSpec, MoeSpec). Specs/families.md, section 2.
#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>

#include <vector>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/router.h"

namespace switchyard::reference {
namespace {

struct FfnTensors {
  at::Tensor gate, up, down;
};

FfnTensors load_ffn(const FfnWeights& weights, const Loader& load) {
  return {load.matrix(weights.gate), load.matrix(weights.up), load.matrix(weights.down)};
}

at::Tensor feed(const FfnShape& shape, const FfnTensors& w, const at::Tensor& x) {
  return project(activate(shape.activation, project(x, w.gate)) * project(x, w.up), w.down);
}

class Ffn final : public Op {
 public:
  Ffn(const FfnSpec& spec, const Loader& load) : shape_(spec), tensors_(load_ffn(spec.weights, load)) {}
  at::Tensor run(const at::Tensor& x, OpState&, const Step&) const override { return feed(shape_, tensors_, x); }

 private:
  const FfnShape shape_;
  const FfnTensors tensors_;
};

// Experts add up in order of their id, so a run repeats bit for bit.
class Moe final : public Op {
 public:
  Moe(const MoeSpec& spec, const Loader& load) : router_(spec, load), shape_(spec.expert) {
    for (const FfnWeights& expert : spec.experts) experts_.push_back(load_ffn(expert, load));
  }

  at::Tensor run(const at::Tensor& x, OpState&, const Step& step) const override {
    std::vector<Share> shares = router_.route_rows(x, step);
    const LayerRecipe* recipe = step.recipe->layer(step.row);
    at::Tensor out = at::zeros_like(x);
    for (size_t e = 0; e < experts_.size(); ++e) {
      Share& share = shares[e];
      const auto count = int64_t(share.rows.size());
      if (count == 0) continue;
      const at::Tensor rows = at::from_blob(share.rows.data(), {count}, at::TensorOptions().dtype(at::kLong));
      const at::Tensor applied = at::from_blob(share.weights.data(), {count, 1});
      const at::Tensor in = x.index_select(0, rows);
      at::Tensor y = router_.spec().apply == ApplyTo::kInput ? feed(shape_, experts_[e], in * applied)
                                                             : feed(shape_, experts_[e], in) * applied;
      if (recipe && !recipe->expert_scale.empty()) y = y * recipe->expert_scale[e];
      out.index_add_(0, rows, y);
    }
    return out;
  }

 private:
  const Router router_;
  const FfnShape shape_;
  std::vector<FfnTensors> experts_;
};

}  // namespace

std::unique_ptr<Op> make_ffn(const FfnSpec& spec, Loader& load) {
  return std::make_unique<Ffn>(spec, load);
}

std::unique_ptr<Op> make_moe(const MoeSpec& spec, Loader& load) {
  return std::make_unique<Moe>(spec, load);
}

}  // namespace switchyard::reference

// Lightning attention: linear attention with a fixed decay per head (LightningSpec). Formula: specs/families.md 1.19.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/recurrent.h"

namespace switchyard::reference {
namespace {

class Lightning final : public Op {
 public:
  Lightning(const LightningSpec& spec, const Loader& load)
      : spec_(spec),
        qkv_(load.matrix(spec.qkv)),
        gate_(load.matrix(spec.gate)),
        o_(load.matrix(spec.o)),
        norm_(load.norm(spec.norm)),
        decay_(at::from_blob(const_cast<float*>(spec_.slopes.data()), {spec.heads, 1, 1}).neg().exp()) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step&) const override {
    const int64_t tokens = x.size(0), heads = spec_.heads, dim = spec_.head_dim;
    const auto qkv = activate(spec_.activation, project(x, qkv_)).view({tokens, heads, 3 * dim}).chunk(3, -1);
    at::Tensor s = state.recurrent.defined() ? state.recurrent : at::zeros({heads, dim, dim}, x.options());
    const at::Tensor mixed = at::empty({tokens, heads, 1, dim}, x.options());
    for (int64_t t = 0; t < tokens; ++t) {
      s = decay_ * s + qkv[1][t].unsqueeze(2) * qkv[2][t].unsqueeze(1);
      mixed[t].copy_(qkv[0][t].unsqueeze(1).bmm(s));
    }
    state.recurrent = s;
    return project(norm_(mixed.view({tokens, heads * dim})) * project(x, gate_).sigmoid(), o_);
  }

 private:
  const LightningSpec spec_;
  const at::Tensor qkv_, gate_, o_;
  const Norm norm_;
  const at::Tensor decay_;  // [heads, 1, 1]
};

}  // namespace

std::unique_ptr<Op> make_lightning(const LightningSpec& spec, Loader& load) {
  return std::make_unique<Lightning>(spec, load);
}

}  // namespace switchyard::reference

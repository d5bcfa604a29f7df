// Gated delta rule (DeltaNetSpec). Formula: specs/families.md 1.23; per value head, with g = exp(-exp(a_log)
// softplus(a + dt_bias)) and beta = sigmoid(b):  S = g S;  S += k (beta (v - k S))^T;  y = q S.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/recurrent.h"

namespace switchyard::reference {
namespace {

constexpr double kUnitEps = 1e-6;

// Unit length over the last dimension.
at::Tensor unit(const at::Tensor& x) {
  return x * (x.square().sum(-1, true) + kUnitEps).rsqrt();
}

class DeltaNet final : public Op {
 public:
  DeltaNet(const DeltaNetSpec& spec, const Loader& load)
      : spec_(spec),
        qkvz_(load.matrix(spec.qkvz)),
        ba_(load.matrix(spec.ba)),
        conv_(load.matrix(spec.conv)),
        dt_bias_(load.vector(spec.dt_bias)),
        rate_(load.vector(spec.a_log).exp().neg()),
        o_(load.matrix(spec.o)),
        norm_(load.norm(spec.norm)) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step&) const override {
    const int64_t tokens = x.size(0), heads = spec_.value_heads, groups = spec_.key_heads, each = heads / groups;
    // Stored per key head: q, k, and v and z of its value heads; b, then a of its value heads.
    const int64_t values = each * spec_.value_dim;
    const auto qkvz = project(x, qkvz_).view({tokens, groups, -1}).split_with_sizes(
        {spec_.key_dim, spec_.key_dim, values, values}, -1);
    const auto ba = project(x, ba_).view({tokens, groups, 2 * each}).chunk(2, -1);
    const at::Tensor beta = ba[0].reshape({tokens, heads, 1}).sigmoid();
    const at::Tensor decay = (rate_ * at::softplus(ba[1].reshape({tokens, heads}) + dt_bias_)).exp();

    const at::Tensor flat =
        at::cat({qkvz[0].reshape({tokens, -1}), qkvz[1].reshape({tokens, -1}), qkvz[2].reshape({tokens, -1})}, -1);
    const int64_t keys = groups * spec_.key_dim;
    const auto mixed = at::silu(causal_convolution(flat, conv_, {}, state.conv))
                           .split_with_sizes({keys, keys, heads * spec_.value_dim}, -1);
    const at::Tensor q = for_value_heads(mixed[0], each) / std::sqrt(double(spec_.key_dim));
    const at::Tensor k = for_value_heads(mixed[1], each);
    const at::Tensor v = mixed[2].view({tokens, heads, spec_.value_dim});

    at::Tensor s = state.recurrent.defined() ? state.recurrent
                                             : at::zeros({heads, spec_.key_dim, spec_.value_dim}, x.options());
    const at::Tensor y = at::empty({tokens, heads, 1, spec_.value_dim}, x.options());
    for (int64_t t = 0; t < tokens; ++t) {
      s = s * decay[t].view({heads, 1, 1});
      const at::Tensor known = k[t].unsqueeze(1).bmm(s).squeeze(1);
      s = s + k[t].unsqueeze(2) * ((v[t] - known) * beta[t]).unsqueeze(1);
      y[t].copy_(q[t].unsqueeze(1).bmm(s));
    }
    state.recurrent = s;
    const at::Tensor z = qkvz[3].reshape({tokens, heads, spec_.value_dim});
    const at::Tensor gated = norm_(y.squeeze(2)) * at::silu(z);
    return project(gated.reshape({tokens, heads * spec_.value_dim}), o_);
  }

 private:
  // [tokens, key heads * key_dim] as unit vectors, one per value head: [tokens, value heads, key_dim].
  at::Tensor for_value_heads(const at::Tensor& x, int64_t each) const {
    return unit(x.view({x.size(0), spec_.key_heads, spec_.key_dim})).repeat_interleave(each, 1);
  }

  const DeltaNetSpec spec_;
  const at::Tensor qkvz_, ba_, conv_, dt_bias_;
  const at::Tensor rate_;  // -exp(a_log)
  const at::Tensor o_;
  const Norm norm_;
};

}  // namespace

std::unique_ptr<Op> make_delta_net(const DeltaNetSpec& spec, Loader& load) {
  return std::make_unique<DeltaNet>(spec, load);
}

}  // namespace switchyard::reference

// Selective state space, Mamba 1 with jamba's norms (MambaSpec). Formula: specs/families.md 1.21.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/recurrent.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kBlock = 32;  // tokens whose decay and input matrices [tokens, inner, state] are held at a time

class Mamba final : public Op {
 public:
  Mamba(const MambaSpec& spec, const Loader& load)
      : spec_(spec),
        in_(load.matrix(spec.in)),
        in_bias_(load.vector(spec.in_bias)),
        conv_(load.matrix(spec.conv)),
        conv_bias_(load.vector(spec.conv_bias)),
        x_(load.matrix(spec.x)),
        dt_(load.matrix(spec.dt)),
        dt_bias_(load.vector(spec.dt_bias)),
        a_(load.matrix(spec.a_log).exp().neg()),
        d_(load.vector(spec.d)),
        out_(load.matrix(spec.out)),
        out_bias_(load.vector(spec.out_bias)),
        dt_norm_(load.norm(spec.dt_norm)),
        b_norm_(load.norm(spec.b_norm)),
        c_norm_(load.norm(spec.c_norm)) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step&) const override {
    const auto parts = project(x, in_, in_bias_).chunk(2, -1);  // input, gate
    const at::Tensor u = at::silu(causal_convolution(parts[0], conv_, conv_bias_, state.conv));
    const auto selected = project(u, x_).split_with_sizes({spec_.dt_rank, spec_.state, spec_.state}, -1);
    const at::Tensor dt = at::softplus(project(dt_norm_(selected[0]), dt_, dt_bias_));
    const at::Tensor b = b_norm_(selected[1]), c = c_norm_(selected[2]);

    at::Tensor h = state.recurrent.defined() ? state.recurrent : at::zeros({spec_.inner, spec_.state}, x.options());
    const at::Tensor y = at::empty_like(u);
    for (int64_t from = 0; from < x.size(0); from += kBlock) {
      const int64_t count = std::min(kBlock, x.size(0) - from);
      const at::Tensor step = dt.narrow(0, from, count);
      const at::Tensor decay = (step.unsqueeze(2) * a_).exp();
      const at::Tensor input = (step * u.narrow(0, from, count)).unsqueeze(2) * b.narrow(0, from, count).unsqueeze(1);
      for (int64_t t = 0; t < count; ++t) {
        h = decay[t] * h + input[t];
        y[from + t].copy_(h.mv(c[from + t]));
      }
    }
    state.recurrent = h;
    return project((y + u * d_) * at::silu(parts[1]), out_, out_bias_);
  }

 private:
  const MambaSpec spec_;
  const at::Tensor in_, in_bias_, conv_, conv_bias_, x_, dt_, dt_bias_;
  const at::Tensor a_;  // [inner, state], negative
  const at::Tensor d_, out_, out_bias_;
  const Norm dt_norm_, b_norm_, c_norm_;
};

}  // namespace

std::unique_ptr<Op> make_mamba(const MambaSpec& spec, Loader& load) {
  return std::make_unique<Mamba>(spec, load);
}

}  // namespace switchyard::reference

// Gated short convolution (ShortConvSpec). Formula: specs/families.md 1.22.
#include <ATen/TensorOperators.h>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/recurrent.h"

namespace switchyard::reference {
namespace {

class ShortConv final : public Op {
 public:
  ShortConv(const ShortConvSpec& spec, const Loader& load)
      : in_(load.matrix(spec.in)),
        in_bias_(load.vector(spec.in_bias)),
        conv_(load.matrix(spec.conv)),
        conv_bias_(load.vector(spec.conv_bias)),
        out_(load.matrix(spec.out)),
        out_bias_(load.vector(spec.out_bias)) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step&) const override {
    const auto parts = project(x, in_, in_bias_).chunk(3, -1);  // B, C, x
    const at::Tensor mixed = causal_convolution(parts[0] * parts[2], conv_, conv_bias_, state.conv);
    return project(parts[1] * mixed, out_, out_bias_);
  }

 private:
  const at::Tensor in_, in_bias_, conv_, conv_bias_, out_, out_bias_;
};

}  // namespace

std::unique_ptr<Op> make_short_conv(const ShortConvSpec& spec, Loader& load) {
  return std::make_unique<ShortConv>(spec, load);
}

}  // namespace switchyard::reference

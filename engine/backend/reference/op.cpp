// From a kind to its op, and what routers ask of attention.
#include "engine/backend/reference/op.h"

namespace switchyard::reference {
namespace {

struct Maker {
  Loader& load;
  std::unique_ptr<Op> operator()(const AttentionSpec& spec) const { return make_attention(spec, load); }
  std::unique_ptr<Op> operator()(const LatentAttentionSpec& spec) const { return make_latent_attention(spec, load); }
  std::unique_ptr<Op> operator()(const FfnSpec& spec) const { return make_ffn(spec, load); }
  std::unique_ptr<Op> operator()(const MoeSpec& spec) const { return make_moe(spec, load); }
  std::unique_ptr<Op> operator()(const MixtureAttentionSpec& spec) const { return make_mixture_attention(spec, load); }
  std::unique_ptr<Op> operator()(const LightningSpec& spec) const { return make_lightning(spec, load); }
  std::unique_ptr<Op> operator()(const DeltaNetSpec& spec) const { return make_delta_net(spec, load); }
  std::unique_ptr<Op> operator()(const MambaSpec& spec) const { return make_mamba(spec, load); }
  std::unique_ptr<Op> operator()(const ShortConvSpec& spec) const { return make_short_conv(spec, load); }
};

}  // namespace

void AttentionRows::take(const at::Tensor& probabilities, int64_t token, int64_t position, int64_t begin) {
  const at::Tensor mean = probabilities.mean(0).contiguous();
  const int64_t keys = mean.size(1);
  for (int64_t query = 0; query < mean.size(0); ++query) {
    const float* from = mean.const_data_ptr<float>() + query * keys;
    float* to = shares.data_ptr<float>() + (token + query) * window;
    for (int64_t o = 0; o < window && position + query - o >= begin; ++o) to[o] = from[position + query - o - begin];
  }
}

std::unique_ptr<Op> make_op(const SublayerOp& spec, Loader& load) {
  return std::visit(Maker{load}, spec);
}

}  // namespace switchyard::reference

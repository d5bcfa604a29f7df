// From a kind to its op.
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

std::unique_ptr<Op> make_op(const SublayerOp& spec, Loader& load) {
  return std::visit(Maker{load}, spec);
}

}  // namespace switchyard::reference

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

namespace {

bool tapped(const Step& step, uint8_t tap) { return !step.frames.empty() && (step.frames[0].header().taps & tap); }
int frame_row(const Step& step) {
  return decision_row(step.frames[0].header().moe_layers, step.row, step.recipe->layer(step.row), step.layer_pass, step.pass);
}

}  // namespace

void note_norms(const Step& step, size_t expert, std::span<const int64_t> rows, const at::Tensor& y) {
  if (!tapped(step, Taps::kOutNorm)) return;
  const at::Tensor norms = y.to(at::kDouble).square().sum(-1).sqrt().to(at::kFloat).contiguous();
  for (size_t i = 0; i < rows.size(); ++i)
    step.frames[size_t(rows[i])].note_out_norm(frame_row(step), ExpertId(expert), norms.const_data_ptr<float>()[i]);
}

void note_block(const Step& step, const at::Tensor& routed) {
  if (!tapped(step, Taps::kBlockCos) || !step.residual) return;
  const at::Tensor before = step.residual->to(at::kDouble), after = before + routed.to(at::kDouble) * double(step.scale);
  const at::Tensor cosines = ((before * after).sum(-1) / (before.square().sum(-1) * after.square().sum(-1)).sqrt()).to(at::kFloat).contiguous();
  for (size_t token = 0; token < step.frames.size(); ++token)
    step.frames[token].note_block_cos(frame_row(step), cosines.const_data_ptr<float>()[token]);
}

std::unique_ptr<Op> make_op(const SublayerOp& spec, Loader& load) {
  return std::visit(Maker{load}, spec);
}

}  // namespace switchyard::reference

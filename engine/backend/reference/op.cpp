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
  template <class Other>
  std::unique_ptr<Op> operator()(const Other&) const {
    throw LoadError{{ErrorCode::kUsage, "no backend runs this kind of mixer yet."}};
  }
};

}  // namespace

std::unique_ptr<Op> make_op(const SublayerOp& spec, Loader& load) {
  return std::visit(Maker{load}, spec);
}

}  // namespace switchyard::reference

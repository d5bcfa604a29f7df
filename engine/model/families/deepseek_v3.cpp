// DeepSeek-V3 and R1 (specs/families.md, section 1.6): latent attention; sigmoid scores, selected with a bias in the
// groups of the largest two-score sums, weights of the unbiased scores. The layers after num_hidden_layers predict
// several tokens and are not read. Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/families/latent.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;
constexpr int kDefaultFirstDense = 3, kDefaultShared = 1;

}  // namespace

ModelPlan plan_deepseek_v3(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const bool interleaved = builder.flag_or("rope_interleave", true);
  const LatentShape shape = latent_shape(builder, plan, interleaved ? RopeKind::kInterleaved : RopeKind::kHalf);

  RouterSpec spec = grouped_sigmoid_router(builder, {"n_routed_experts", "num_local_experts"}, plan.layers.size(),
                                           {.norm_topk_prob = true, .scale = 2.5f});
  spec.groups = builder.count_or("n_group", 8, kMaxExperts);
  spec.groups_kept = builder.count_or("topk_group", 4, kMaxExperts);
  builder.only("scoring_func", "sigmoid");
  builder.only("topk_method", "noaux_tc");
  deepseek_layers(builder, plan, shape, spec, kDefaultFirstDense, kDefaultShared);
  return plan;
}

}  // namespace switchyard

// DeepSeek-V2 and V2-Lite (specs/families.md, section 1.5): latent attention, interleaved rope; softmax over all
// experts, then top-k, greedy or in the groups of the largest scores, times routed_scaling_factor. norm_topk_prob is
// not read, as in transformers. Data only; called while a checkpoint opens.
#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/families/latent.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;
constexpr int kDefaultFirstDense = 0, kDefaultShared = 2;

RouterSpec read_router(PlanBuilder& builder, size_t layers) {
  RouterSpec spec = router(builder, {"n_routed_experts", "num_experts"}, layers);
  spec.scale = builder.number_or("routed_scaling_factor", 1, 0);
  const std::string method = builder.take(builder.config().text_or("topk_method", "greedy"), std::string("greedy"));
  if (method == "group_limited_greedy") {
    spec.groups = builder.count({"n_group"}, kMaxExperts);
    spec.groups_kept = builder.count({"topk_group"}, kMaxExperts);
    spec.group_score = GroupScore::kMax;
    spec.group_fill = GroupFill::kZero;
  } else if (method != "greedy") {
    builder.refuse_config(
        fmt::format("has topk_method = {}, supported are greedy and group_limited_greedy", quote(method)));
  }
  return spec;
}

}  // namespace

ModelPlan plan_deepseek_v2(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const LatentShape shape = latent_shape(builder, plan, RopeKind::kInterleaved);
  const RouterSpec spec = read_router(builder, plan.layers.size());
  builder.only("scoring_func", "softmax");
  builder.refuse_if("mlp_bias");
  deepseek_layers(builder, plan, shape, spec, kDefaultFirstDense, kDefaultShared);
  return plan;
}

}  // namespace switchyard

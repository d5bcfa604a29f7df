// The table of families.
#include "engine/model/families/families.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

struct Family {
  std::string_view model_type;
  MakePlan plan;
};
constexpr std::array kFamilies{
    Family{"mixtral", plan_mixtral},
    Family{"olmoe", plan_olmoe},
    Family{"qwen3_moe", plan_qwen3_moe},
};

Result<void> refuse_quantised(const JsonView& config) {
  const auto quantisation = config.find("quantization_config");
  if (!quantisation) return {};
  SY_TRY(const std::string method, quantisation->text_or("quant_method", "unnamed"));
  return config.fail(
      fmt::format("says the weights are quantised (quant_method {}), which is not supported.", quote(method)),
      "Open the bfloat16, float16 or float32 release of the model.");
}

}  // namespace

std::string supported_families() {
  std::string list;
  for (const Family& family : kFamilies) list += (list.empty() ? "" : ", ") + std::string(family.model_type);
  return list;
}

Result<MakePlan> family_of(const JsonView& config) {
  SY_TRY(const std::string model_type, config.text("model_type"));
  const auto family =
      std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) { return f.model_type == model_type; });
  if (family == kFamilies.end())
    return config.fail(fmt::format("has model_type {}, which is not supported.", quote(model_type)),
                       fmt::format("Supported families: {}.", supported_families()));
  SY_CHECK(refuse_quantised(config));
  return family->plan;
}

Result<ModelPlan> plan_model(const JsonView& config, std::span<const TensorInfo> tensors,
                             std::span<const std::string> shards) {
  SY_TRY(const MakePlan make_plan, family_of(config));
  PlanBuilder builder(config, tensors, shards);
  ModelPlan plan = make_plan(builder);
  if (!builder.failed() && plan.moe_layers.empty())
    builder.refuse_config("describes a model without a layer of experts.");
  if (builder.failed()) return tl::unexpected<Error>(*builder.error());
  SY_TRY(plan.family, config.text("model_type"));
  return plan;
}

}  // namespace switchyard

// See removal.h.
#include "engine/surgery/removal.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/routing/decision.h"

namespace switchyard {
namespace {

int experts_of(const ModelPlan& plan, int row) { return plan.routed(row).router.experts; }

int identities_of(const ModelPlan& plan, int row) {
  const RoutingRow& at = plan.rows[size_t(row)];
  const auto* moe = std::get_if<MoeSpec>(&plan.layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op);
  return moe ? moe->identity_experts : 0;
}

bool any_set(const std::vector<float>& values, float neutral) {
  return std::any_of(values.begin(), values.end(), [&](float value) { return value != neutral; });
}

// Group limits count neighbouring experts: each group must lose as many.
bool cuts_groups_evenly(const RouterSpec& router, const KeptExperts& kept) {
  if (router.groups <= 1) return true;
  const int width = router.experts / router.groups;
  std::vector<int> left(size_t(router.groups));
  for (const ExpertId id : kept) ++left[size_t(id / width)];
  return std::all_of(left.begin(), left.end(), [&](int count) { return count == left[0]; });
}

std::string removal_problem(const ModelPlan& plan, int row, const KeptExperts& kept) {
  const RouterSpec& router = plan.routed(row).router;
  if (int(kept.size()) == router.experts) return {};
  if (router.product_key) return "its router makes the logits of two sets of keys, so that no single expert can be taken out";
  if (router.capacity == Capacity::kFactor)
    return "an expert's capacity is counted from the number of experts, so that taking some out changes it";
  const int identities = identities_of(plan, row);
  if (std::count_if(kept.begin(), kept.end(), [&](ExpertId id) { return id >= router.experts - identities; }) != identities)
    return "the experts without weights cannot be taken out";
  if (!cuts_groups_evenly(router, kept))
    return fmt::format("its router keeps {} of {} groups of neighbouring experts, which would have unequal sizes; mute as many in each group",
                       router.groups_kept, router.groups);
  if (router.groups > 1 && router.group_score == GroupScore::kTop2Sum && int(kept.size()) < 2 * router.groups)
    return "its router adds up the two best experts of a group, and there would be groups of one";
  return {};
}

// What one row asks.
void row_problems(const ModelPlan& plan, int row, const LayerRecipe& recipe, const KeptExperts& kept,
                  std::vector<std::string>& problems) {
  const RouterSpec& router = plan.routed(row).router;
  const auto add = [&](std::string_view edit, std::string_view why) {
    problems.push_back(fmt::format("{}: {}: {}.", plan.row_name(row), edit, why));
  };
  for (size_t id = 0; id < recipe.others.size(); ++id)
    if (recipe.others[id]) {
      add("expert_kind", fmt::format("a checkpoint of {} has experts of one kind", plan.family));
      break;
    }
  if (recipe.scheme)
    add("scheme", fmt::format("a checkpoint of {} says no other gating rule than its own", plan.family));
  if (std::find(recipe.forced.begin(), recipe.forced.end(), 1) != recipe.forced.end())
    add("force", "no architecture has a tensor or setting that selects an expert always");
  if (any_set(recipe.logit_bias, 0) && !router.has_logit_bias)
    add("bias", fmt::format("routers of {} have no bias", plan.family));
  if (any_set(recipe.select_bias, 0) && !router.has_select_bias)
    add("select_bias", fmt::format("routers of {} have no bias for the selection", plan.family));
  if (router.product_key && any_set(recipe.row_scale, 1))
    add("router_row", "the router has no row of an expert");
  if (identities_of(plan, row) > 0)
    for (size_t id = size_t(router.experts - identities_of(plan, row)); id < recipe.expert_scale.size(); ++id)
      if (recipe.expert_scale[id] != 1) {
        add("expert_scale", fmt::format("expert {} has no weights to scale", id));
        break;
      }
  if (const std::string why = removal_problem(plan, row, kept); !why.empty()) add("mute", why);
}

}  // namespace

std::vector<KeptExperts> kept_experts(const ModelPlan& plan, const Recipe& recipe) {
  std::vector<KeptExperts> kept(plan.rows.size());
  for (size_t row = 0; row < kept.size(); ++row) {
    const LayerRecipe* edits = recipe.layer(int(row));
    for (int id = 0; id < experts_of(plan, int(row)); ++id)
      if (!edits || edits->muted.empty() || !edits->muted[size_t(id)]) kept[row].push_back(ExpertId(id));
  }
  return kept;
}

int k_of(const ModelPlan& plan, const Recipe& recipe, const std::vector<KeptExperts>& kept, int row) {
  const RouterSpec& router = plan.routed(row).router;
  int selectable = int(kept[size_t(row)].size());
  if (router.groups > 1 && router.group_fill == GroupFill::kMinusInfinity)
    selectable = selectable / router.groups * router.groups_kept;
  return std::min(slots_needed(router, recipe.layer(row)), selectable);
}

std::vector<std::string> inexpressible(const ModelPlan& plan, const Recipe& recipe, const std::vector<KeptExperts>& kept) {
  std::vector<std::string> problems;
  if (!recipe.adapters.empty())
    problems.push_back("adapters: a checkpoint holds no adapters and no router for them. Take them away; the adapter's own package can merge one.");
  if (!recipe.path.native())
    problems.push_back("layer_path: a checkpoint holds each layer once and numbers them without a gap; what is skipped or repeated is how it is run. "
                       "Leave the path out, and give it to run or score beside the exported model.");
  for (int row = 0; row < int(plan.rows.size()); ++row)
    if (const LayerRecipe* edits = recipe.layer(row)) row_problems(plan, row, *edits, kept[size_t(row)], problems);
  const auto differs = [&](auto&& of) {
    for (int row = 1; row < int(plan.rows.size()); ++row)
      if (of(row) != of(0)) return row;
    return 0;
  };
  // Families may have layers of different widths by nature; then each keeps its own.
  const auto removed = [&](int row) { return experts_of(plan, row) - int(kept[size_t(row)].size()); };
  if (const int row = differs(removed))
    problems.push_back(fmt::format(
        "mute: {} would keep {} experts and {} {}, but {} has one number of experts for all layers. Mute as many in each.",
        plan.row_name(0), kept[0].size(), plan.row_name(row), kept[size_t(row)].size(), plan.family));
  return problems;
}

}  // namespace switchyard

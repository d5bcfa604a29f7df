// See edited_config.h. The keys are those under which the families' configs write the two numbers
// (specs/families.md, section 1); those of multimodal models stand one object deeper.
#include "engine/surgery/edited_config.h"

#include <array>
#include <set>

#include <fmt/format.h>

#include "engine/base/json.h"

namespace switchyard {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::array kExpertKeys{"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"};
constexpr std::array kTopKKeys{"num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
                               "router_topk"};
// Reads a list with a number for every layer.
constexpr std::string_view kListFamily = "hunyuan_v1_moe";

// Writes `value` to those of the keys that the config has, also within its objects; returns how many.
template <size_t N>
int write_number(OrderedJson& config, const std::array<const char*, N>& keys, const OrderedJson& value) {
  int written = 0;
  for (auto& [key, member] : config.items()) {
    if (member.is_object()) written += write_number(member, keys, value);
    for (const char* wanted : keys)
      if (key == wanted && (member.is_number_integer() || member.is_array())) {
        member = value;
        ++written;
      }
  }
  return written;
}

Result<void> write_experts(OrderedJson& config, const ModelPlan& plan, const std::vector<KeptExperts>& kept) {
  const RoutedSpec& first = plan.routed(0);
  if (int(kept[0].size()) == first.router.experts) return {};
  const auto* moe = std::get_if<MoeSpec>(&plan.layers[size_t(plan.rows[0].layer)].sublayers[size_t(plan.rows[0].sublayer)].op);
  const int stored = int(kept[0].size()) - (moe ? moe->identity_experts : 0);
  if (write_number(config, kExpertKeys, stored) == 0)
    return fail(ErrorCode::kUsage, "does not say how many experts a layer has, so that none can be taken out.", "config.json");
  return {};
}

Result<void> write_top_k(OrderedJson& config, const ModelPlan& plan, const Recipe& recipe, const std::vector<KeptExperts>& kept) {
  std::vector<int> ks;
  bool changed = false;
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    ks.push_back(k_of(plan, recipe, kept, row));
    changed |= ks.back() != plan.routed(row).router.experts_per_token;
  }
  if (!changed) return {};
  OrderedJson value = ks[0];
  if (std::set(ks.begin(), ks.end()).size() > 1) {
    if (plan.family != kListFamily || ks.size() != plan.layers.size())
      return fail(ErrorCode::kUsage,
                  fmt::format("top_k: {} would take {} experts and another layer {}, but {} has one number for all layers.",
                              plan.row_name(0), ks[0], *std::find_if(ks.begin(), ks.end(), [&](int k) { return k != ks[0]; }),
                              plan.family),
                  "config.json", "Set the same k in all layers.");
    value = ks;
  }
  if (write_number(config, kTopKKeys, value) == 0)
    return fail(ErrorCode::kUsage, fmt::format("top_k: configs of {} have no number of experts per token.", plan.family), "config.json");
  return {};
}

}  // namespace

Result<std::string> edited_config(std::string_view config_json, const ModelPlan& plan, const Recipe& recipe,
                                  const std::vector<KeptExperts>& kept) {
  SY_CHECK(parse_json(config_json, "config.json"));  // the limits and refusals of every config
  OrderedJson config = OrderedJson::parse(config_json);
  SY_CHECK(write_experts(config, plan, kept));
  SY_CHECK(write_top_k(config, plan, recipe, kept));
  return config.dump(2) + "\n";
}

}  // namespace switchyard

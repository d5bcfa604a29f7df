#include "app/session/scheme_choices.h"

#include <algorithm>
#include <string_view>

namespace switchyard {
namespace {

constexpr std::string_view kNative = "native";

}  // namespace

SchemeChoice scheme_in_force(const Recipe* recipe, int moe_layer) {
  const LayerRecipe* layer = recipe ? recipe->layer(moe_layer) : nullptr;
  return layer && layer->scheme ? layer->scheme.choice : SchemeChoice{std::string(kNative), {}};
}

bool needs_file(const SchemeInfo& scheme) {
  return std::any_of(scheme.needs.begin(), scheme.needs.end(),
                     [](const char* need) { return std::string_view(need) == "file"; });
}

std::string why_not(const SchemeInfo& scheme, const ModelPlan& plan, int moe_layer, bool all) {
  if (scheme.origin) return scheme.origin->why_not();  // code is loaded when it is chosen
  if (needs_file(scheme)) return {};
  const auto made = make_scheme({scheme.name, {}});
  if (!made) return made.error().message();
  const auto fits = scheme_edit(*made, plan, moe_layer, all);
  return fits ? std::string() : fits.error().message();
}

bool names_file(const SchemeChoice& choice) {
  const SchemeInfo* info = find_scheme(choice.name);
  return info && std::any_of(info->parameters.begin(), info->parameters.end(), [&](const SchemeParameter& parameter) {
           const SchemeValue value = value_of(choice, parameter);
           const auto* path = std::get_if<std::string>(&value);
           return parameter.type == SchemeParameter::Type::kFile && path && !path->empty();
         });
}

Result<EditCommand> scheme_edit(const Scheme& scheme, const ModelPlan& plan, int moe_layer, bool all) {
  LayerSet layers = layer_of_row(plan, moe_layer);
  if (all) layers.layers.clear();
  EditCommand command{SetScheme{std::move(layers), scheme}, std::nullopt};
  SY_CHECK(validate(command.edit, plan));
  return command;
}

SchemeValue value_of(const SchemeChoice& choice, const SchemeParameter& parameter) {
  const auto own = choice.parameters.find(parameter.name);
  return own == choice.parameters.end() ? parameter.standard : own->second;
}

std::string properties_of(const SchemeInfo& scheme) {
  std::string out = scheme.exact ? "exact" : "inspired by";
  if (!scheme.causal)
    out += " · looks at later tokens of the prompt";
  else if (scheme.batch_coupled)
    out += " · tokens that run together share";
  if (scheme.stochastic) out += " · by seed";
  if (scheme.token_only) out += " · known from the token id alone";
  for (const char* need : scheme.needs) out += std::string(" · needs ") + need;
  return out;
}

}  // namespace switchyard

// Schemes and logit edits of plugins in the registry of gating schemes.
#include <algorithm>
#include <deque>

#include "engine/plugin_host/gate.h"
#include "engine/plugin_host/host.h"
#include "engine/routing/scheme_makers.h"

namespace switchyard {
namespace {

class Origin final : public SchemeOrigin {
 public:
  Origin(PluginHost& host, std::shared_ptr<Plugin> plugin, const Contribution& contribution)
      : host_(host), plugin_(std::move(plugin)), contribution_(contribution) {}

  std::string why_not() const override { return plugin_->why_not(); }

  Result<std::shared_ptr<const SchemeCode>> make(const SchemeInfo& info, const SchemeChoice& choice) const override {
    std::vector<double> parameters;
    for (const SchemeParameter& parameter : info.parameters) {
      const auto given = choice.parameters.find(parameter.name);
      const SchemeValue& value = given == choice.parameters.end() ? parameter.standard : given->second;
      if (const auto* flag = std::get_if<bool>(&value))
        parameters.push_back(*flag);
      else if (const auto* number = std::get_if<double>(&value))
        parameters.push_back(*number);
      else if (const auto* word = std::get_if<std::string>(&value))
        parameters.push_back(
            double(std::find(parameter.choices.begin(), parameter.choices.end(), *word) - parameter.choices.begin()));
    }
    host_.watch_for_crashes();
    SY_TRY(std::shared_ptr<const SchemeCode> gate,
           PluginGate::make(plugin_, contribution_, std::move(parameters), host_.crumbs()));
    return gate;
  }

 private:
  PluginHost& host_;
  std::shared_ptr<Plugin> plugin_;
  const Contribution& contribution_;  // of the plugin
};

// Texts that the registry points to; as long as the program.
const char* keep(std::string text) {
  static std::deque<std::string> kept;
  return kept.emplace_back(std::move(text)).c_str();
}

SchemeParameter parameter_of(const PluginField& field) {
  SchemeParameter out{};
  out.name = keep(field.name);
  out.min = field.min, out.max = field.max;
  out.meaning = keep(field.title + (field.unit.empty() ? "" : (field.title.empty() ? "" : ", ") + field.unit));
  for (const std::string& choice : field.choices) out.choices.push_back(keep(choice));
  switch (field.type) {
    case PluginField::Type::kReal:
      out.type = SchemeParameter::Type::kReal, out.standard = field.standard.get<double>();
      break;
    case PluginField::Type::kInteger:
      out.type = SchemeParameter::Type::kInteger, out.standard = field.standard.get<double>();
      break;
    case PluginField::Type::kBoolean:
      out.type = SchemeParameter::Type::kBoolean, out.standard = field.standard.get<bool>();
      break;
    case PluginField::Type::kChoice:
    case PluginField::Type::kText:
      out.type = SchemeParameter::Type::kChoice, out.standard = field.standard.get<std::string>();
      break;
  }
  return out;
}

}  // namespace

void register_plugin_schemes(PluginHost& host) {
  std::vector<SchemeInfo> added;
  for (const PluginKind kind : {PluginKind::kScheme, PluginKind::kEdit}) {
    for (const auto& [plugin, contribution] : host.contributions(kind)) {
      SchemeInfo info{};
      info.name = contribution->id.c_str();
      info.title = keep(contribution->title + (kind == PluginKind::kEdit ? " (logit edit)" : ""));
      info.source = keep((contribution->source.empty() ? "" : contribution->source + ", ") + "plugin " + plugin->id() +
                         " " + plugin->manifest().version);
      info.formula =
          keep(contribution->formula.empty()
                   ? contribution->description.empty() ? "as the plugin's code decides" : contribution->description
                   : contribution->formula);
      info.exact = false;
      info.causal = contribution->causal;
      info.stochastic = contribution->stochastic;
      info.needs = {keep("plugin " + plugin->id())};
      for (const PluginField& field : contribution->parameters) info.parameters.push_back(parameter_of(field));
      add_scheme_maker(contribution->id, {plugin->id(), plugin->manifest().version, plugin->sha256()});
      info.origin = std::make_shared<Origin>(host, plugin, *contribution);
      added.push_back(std::move(info));
    }
  }
  add_schemes(std::move(added));
}

}  // namespace switchyard

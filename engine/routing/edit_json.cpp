// Edits as JSON (specs/cli.md): one entry, a whole script, and a parser that names every problem by its entry.
// Nothing in an entry is ignored: a key or kind that is not understood is refused.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/json.h"
#include "engine/routing/edit.h"
#include "engine/routing/path_router.h"

namespace switchyard {
namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr int64_t kLargestToken = int64_t(1) << 62;
constexpr int64_t kLargestNeuron = (int64_t(1) << 31) - 1;

// The double that prints as the float's shortest decimal: 0.1f is written 0.1 and read back as 0.1f.
double decimal(float value) {
  const std::string text = fmt::format("{}", value);
  double out = value;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

template <class T>
OrderedJson one_or_list(const std::vector<T>& values) {
  return values.size() == 1 ? OrderedJson(values[0]) : OrderedJson(values);
}

OrderedJson decimals(const std::vector<float>& values) {
  OrderedJson list = OrderedJson::array();
  for (const float value : values) list.push_back(decimal(value));
  return list;
}

// The fields that say what an edit of this kind does, beside its layers and experts.
template <class E>
void write_fields(const E& edit, OrderedJson& out) {
  if constexpr (requires { edit.value; }) out["value"] = decimal(edit.value);
  if constexpr (requires { edit.k; }) out["k"] = edit.k;
}
void write_fields(const RouterRow& edit, OrderedJson& out) {
  if (!edit.row) {
    out["scale"] = decimal(edit.scale);
    return;
  }
  switch (edit.row->kind) {
    case RowSource::Kind::kOwn: out["copy_from"] = "own"; break;
    case RowSource::Kind::kCopy: out["copy_from"] = edit.row->expert; break;
    case RowSource::Kind::kRotate:
      out["rotate_towards"] = edit.row->expert;
      out["angle"] = decimal(edit.row->degrees);
      break;
    case RowSource::Kind::kValues: out["values"] = decimals(*edit.row->values); break;
  }
}
void write_fields(const Merge& edit, OrderedJson& out) {
  if (!edit.weights.empty()) out["weights"] = decimals(edit.weights);
}
void write_fields(const Replace& edit, OrderedJson& out) {
  if (edit.mix.empty()) {
    out["from"] = "own";
    return;
  }
  std::vector<ExpertId> from;
  std::vector<float> weights;
  for (const ExpertShare& share : edit.mix) {
    from.push_back(share.expert);
    weights.push_back(share.weight);
  }
  out["from"] = one_or_list(from);
  if (weights != std::vector{1.0f}) out["weights"] = decimals(weights);
}
void write_fields(const SetScheme& edit, OrderedJson& out) {
  out["name"] = edit.scheme ? edit.scheme.choice.name : "native";
  for (const auto& [name, value] : edit.scheme.choice.parameters)
    out["parameters"][name] = std::visit([](const auto& v) { return OrderedJson(v); }, value);
}
void write_fields(const NeuronMask& edit, OrderedJson& out) { out["neurons"] = edit.neurons; }
void write_fields(const SetExpertKind& edit, OrderedJson& out) {
  out["to"] = name(edit.to);
  if (!edit.file.empty()) out["file"] = edit.file;
}
void write_fields(const SetAdapters& edit, OrderedJson& out) {
  if (!edit.modules.empty()) out["modules"] = edit.modules;
  if (!edit.adapters) {
    out["files"] = OrderedJson::array();
    return;
  }
  const AdapterChoice& choice = edit.adapters.set->choice;
  out["files"] = choice.files;
  out["adapter_router"] = choice.router;
  for (const auto& [name, value] : choice.parameters)
    out["parameters"][name] = std::visit([](const auto& v) { return OrderedJson(v); }, value);
}
void write_fields(const LayerPath& edit, OrderedJson& out) {
  if (edit.chooser) out["routers"] = edit.chooser.file, out["budget"] = edit.chooser.budget;
  else if (edit.passes.empty()) out["layers"] = "all";
  else out["layers"] = path_of(edit.passes, int(edit.passes.size()));
}

OrderedJson entry_json(const EditCommand& command) {
  OrderedJson out;
  out["kind"] = kind(command.edit);
  std::visit(
      [&]<class E>(const E& edit) {
        if constexpr (requires { edit.layers; }) {
          out["layer"] = edit.layers.all() ? OrderedJson("all") : one_or_list(edit.layers.layers);
          if (edit.layers.attention) out["router"] = "attention";
        }
        if constexpr (requires { edit.experts; }) out["expert"] = one_or_list(edit.experts);
        if constexpr (requires { edit.members; }) out["experts"] = edit.members;
        write_fields(edit, out);
      },
      command.edit);
  if (command.at_token) out["at_token"] = *command.at_token;
  return out;
}

tl::unexpected<Error> malformed(std::string what) { return fail(ErrorCode::kMalformed, std::move(what)); }

// Integer of an entry in [min, max].
Result<int64_t> integer_in(const Json& value, std::string_view name, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return malformed(fmt::format("{} is {}, needs an integer", name, value.dump()));
  if (value.is_number_unsigned() ? value.get<uint64_t>() > uint64_t(max) : value.get<int64_t>() < min || value.get<int64_t>() > max)
    return malformed(fmt::format("{} is {}, out of range", name, value.dump()));
  return value.get<int64_t>();
}

// "2-5" or "3" -> layers.
Result<std::vector<int>> layer_range(const std::string& text) {
  const auto bad = [&] { return malformed(fmt::format("layer is \"{}\", needs an index, a list, a range such as \"2-5\", or \"all\"", text)); };
  int first = 0, last = 0;
  const char *at = text.data(), *end = at + text.size();
  auto parsed = std::from_chars(at, end, first);
  if (parsed.ec != std::errc() || first < 0) return bad();
  last = first;
  if (parsed.ptr != end) {
    if (*parsed.ptr != '-') return bad();
    const char* second = parsed.ptr + 1;
    if (second == end || *second < '0' || *second > '9') return bad();
    parsed = std::from_chars(second, end, last);
    if (parsed.ec != std::errc() || parsed.ptr != end) return bad();
  }
  if (last < first || last > 65535) return malformed(fmt::format("layer range \"{}\" runs backwards or too far", text));
  std::vector<int> layers;
  for (int layer = first; layer <= last; ++layer) layers.push_back(layer);
  return layers;
}

Result<LayerSet> layers_in(const Json& entry) {
  const auto found = entry.find("layer");
  if (found == entry.end()) return malformed("needs \"layer\"");
  LayerSet set;
  set.attention = entry.contains("router") && entry["router"] == "attention";
  if (found->is_string()) {
    if (found->get<std::string>() == "all") return set;
    SY_TRY(set.layers, layer_range(found->get<std::string>()));
    return set;
  }
  const Json list = found->is_array() ? *found : Json::array({*found});
  if (list.empty()) return malformed("layer is an empty list");
  for (const Json& item : list) {
    SY_TRY(const int64_t layer, integer_in(item, "layer", 0, 65535));
    set.layers.push_back(static_cast<int>(layer));
  }
  std::sort(set.layers.begin(), set.layers.end());
  set.layers.erase(std::unique(set.layers.begin(), set.layers.end()), set.layers.end());
  return set;
}

// An id or a list of ids, in the order given.
Result<std::vector<ExpertId>> ids_in(const Json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end()) return malformed(fmt::format("needs \"{}\"", key));
  const Json list = found->is_array() ? *found : Json::array({*found});
  if (list.empty()) return malformed(fmt::format("{} is an empty list", key));
  std::vector<ExpertId> experts;
  for (const Json& item : list) {
    SY_TRY(const int64_t expert, integer_in(item, key, 0, kNoExpert - 1));
    experts.push_back(static_cast<ExpertId>(expert));
  }
  return experts;
}

Result<std::vector<ExpertId>> experts_in(const Json& entry) {
  SY_TRY(std::vector<ExpertId> experts, ids_in(entry, "expert"));
  std::sort(experts.begin(), experts.end());
  experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
  return experts;
}

Result<float> number(const Json& value, const char* key) {
  if (!value.is_number()) return malformed(fmt::format("{} is {}, needs a number", key, value.dump()));
  const float out = static_cast<float>(value.get<double>());
  if (!std::isfinite(out)) return malformed(fmt::format("{} is {}, needs a finite number", key, value.dump()));
  return out;
}

Result<float> number_in(const Json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end()) return malformed(fmt::format("needs \"{}\"", key));
  return number(*found, key);
}

// Absent: empty.
Result<std::vector<float>> numbers_in(const Json& entry, const char* key) {
  std::vector<float> values;
  const auto found = entry.find(key);
  if (found == entry.end()) return values;
  if (!found->is_array() || found->empty()) return malformed(fmt::format("{} needs a list of numbers", key));
  for (const Json& item : *found) {
    SY_TRY(const float value, number(item, key));
    values.push_back(value);
  }
  return values;
}

Result<void> check_keys(const Json& entry, std::initializer_list<std::string_view> fields) {
  for (const auto& [key, value] : entry.items()) {
    if (key == "kind" || key == "layer" || key == "router" || key == "at_token") continue;
    if (std::find(fields.begin(), fields.end(), key) == fields.end())
      return malformed(fmt::format("{} has no field \"{}\"", entry["kind"].get<std::string>(), key));
  }
  return {};
}

template <class E>
Result<Edit> expert_edit(const Json& entry) {
  SY_CHECK(check_keys(entry, {"expert"}));
  SY_TRY(LayerSet layers, layers_in(entry));
  SY_TRY(std::vector<ExpertId> experts, experts_in(entry));
  return E{std::move(layers), std::move(experts)};
}

template <class E>
Result<Edit> value_edit(const Json& entry, const char* key = "value") {
  SY_CHECK(check_keys(entry, {"expert", key}));
  SY_TRY(LayerSet layers, layers_in(entry));
  SY_TRY(std::vector<ExpertId> experts, experts_in(entry));
  SY_TRY(const float value, number_in(entry, key));
  return E{std::move(layers), std::move(experts), value};
}

Result<SchemeValue> scheme_value(const std::string& name, const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return malformed(fmt::format("parameter \"{}\" is {}", name, value.dump()));
  std::vector<int> ids;
  for (const Json& item : value) {
    SY_TRY(const int64_t id, integer_in(item, name, 0, kNoExpert - 1));
    ids.push_back(static_cast<int>(id));
  }
  return ids;
}

Result<Edit> scheme_edit(const Json& entry) {
  SY_CHECK(check_keys(entry, {"name", "parameters"}));
  SY_TRY(LayerSet layers, layers_in(entry));
  const auto name = entry.find("name");
  if (name == entry.end() || !name->is_string()) return malformed("needs \"name\", a gating scheme");
  SchemeChoice choice{name->get<std::string>(), {}};
  if (const auto parameters = entry.find("parameters"); parameters != entry.end()) {
    if (!parameters->is_object()) return malformed("parameters is no object");
    for (const auto& [key, value] : parameters->items()) {
      SY_TRY(SchemeValue parsed, scheme_value(key, value));
      choice.parameters.emplace(key, std::move(parsed));
    }
  }
  SY_TRY(Scheme scheme, make_scheme(choice));
  return SetScheme{std::move(layers), std::move(scheme)};
}

template <class E>
Result<Edit> members_edit(const Json& entry) {
  constexpr bool kWeighted = requires(E e) { e.weights; };
  SY_CHECK(kWeighted ? check_keys(entry, {"experts", "weights"}) : check_keys(entry, {"experts"}));
  E edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.members, ids_in(entry, "experts"));
  if constexpr (kWeighted) {
    SY_TRY(edit.weights, numbers_in(entry, "weights"));
  }
  return edit;
}

Result<Edit> router_row(const Json& entry) {
  SY_CHECK(check_keys(entry, {"expert", "scale", "values", "copy_from", "rotate_towards", "angle"}));
  int forms = 0;
  for (const char* form : {"scale", "values", "copy_from", "rotate_towards"}) forms += entry.contains(form);
  if (forms != 1) return malformed("needs one of \"scale\", \"values\", \"copy_from\" and \"rotate_towards\"");
  if (entry.contains("angle") != entry.contains("rotate_towards"))
    return malformed("\"rotate_towards\" and \"angle\" go together");
  if (entry.contains("scale")) return value_edit<RouterRow>(entry, "scale");
  RouterRow edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.experts, experts_in(entry));
  RowSource row;
  if (entry.contains("values")) {
    row.kind = RowSource::Kind::kValues;
    SY_TRY(std::vector<float> values, numbers_in(entry, "values"));
    row.values = std::make_shared<const std::vector<float>>(std::move(values));
  } else if (entry.contains("rotate_towards")) {
    row.kind = RowSource::Kind::kRotate;
    SY_TRY(const int64_t expert, integer_in(entry["rotate_towards"], "rotate_towards", 0, kNoExpert - 1));
    row.expert = static_cast<ExpertId>(expert);
    SY_TRY(row.degrees, number_in(entry, "angle"));
  } else if (entry["copy_from"] != "own") {
    row.kind = RowSource::Kind::kCopy;
    SY_TRY(const int64_t expert, integer_in(entry["copy_from"], "copy_from", 0, kNoExpert - 1));
    row.expert = static_cast<ExpertId>(expert);
  }
  edit.row = std::move(row);
  return edit;
}

Result<Edit> replace(const Json& entry) {
  SY_CHECK(check_keys(entry, {"expert", "from", "weights"}));
  Replace edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.experts, experts_in(entry));
  SY_TRY(const std::vector<float> weights, numbers_in(entry, "weights"));
  if (const auto from = entry.find("from"); from != entry.end() && *from == "own") {
    if (!weights.empty()) return malformed("\"weights\" belong to a list of experts");
    return edit;
  }
  SY_TRY(const std::vector<ExpertId> from, ids_in(entry, "from"));
  if (!weights.empty() && weights.size() != from.size())
    return malformed(fmt::format("there are {} weights for {} experts", weights.size(), from.size()));
  std::map<ExpertId, float> mix;
  for (size_t i = 0; i < from.size(); ++i)
    if (!mix.emplace(from[i], weights.empty() ? 1.0f / float(from.size()) : weights[i]).second)
      return malformed(fmt::format("from names expert {} twice", from[i]));
  for (const auto& [expert, weight] : mix)
    if (weight != 0) edit.mix.push_back({expert, weight});
  if (edit.mix.empty()) return malformed("all weights are 0");
  return edit;
}

Result<Edit> neuron_mask(const Json& entry) {
  SY_CHECK(check_keys(entry, {"expert", "neurons"}));
  NeuronMask edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.experts, experts_in(entry));
  const auto found = entry.find("neurons");
  if (found == entry.end() || !found->is_array()) return malformed("needs \"neurons\", a list");
  for (const Json& item : *found) {
    SY_TRY(const int64_t neuron, integer_in(item, "neurons", 0, kLargestNeuron));
    edit.neurons.push_back(static_cast<int>(neuron));
  }
  std::sort(edit.neurons.begin(), edit.neurons.end());
  edit.neurons.erase(std::unique(edit.neurons.begin(), edit.neurons.end()), edit.neurons.end());
  return edit;
}

Result<Edit> expert_kind(const Json& entry) {
  SY_CHECK(check_keys(entry, {"expert", "to", "file"}));
  SetExpertKind edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.experts, experts_in(entry));
  const auto to = entry.find("to");
  const auto found = to != entry.end() && to->is_string() ? std::find(std::begin(kExpertKinds), std::end(kExpertKinds), to->get<std::string>())
                                                          : std::end(kExpertKinds);
  if (found == std::end(kExpertKinds)) return malformed(fmt::format("needs \"to\", one of {}", fmt::join(kExpertKinds, ", ")));
  edit.to = static_cast<ExpertKind>(found - std::begin(kExpertKinds));
  const auto file = entry.find("file");
  if ((file != entry.end()) != needs_file(edit.to))
    return malformed(fmt::format("{} {} \"file\"", name(edit.to), needs_file(edit.to) ? "needs" : "has no field"));
  if (file == entry.end()) return edit;
  if (!file->is_string()) return malformed("file is no name");
  edit.file = file->get<std::string>();
  SY_TRY(edit.tensors, read_expert_file(edit.file));
  return edit;
}

// Absent: empty.
Result<std::vector<std::string>> words_in(const Json& entry, const char* key) {
  std::vector<std::string> words;
  const auto found = entry.find(key);
  if (found == entry.end()) return words;
  if (!found->is_array()) return malformed(fmt::format("{} needs a list of words", key));
  for (const Json& item : *found) {
    if (!item.is_string() || item.get<std::string>().empty()) return malformed(fmt::format("{} needs words, {} is none", key, item.dump()));
    words.push_back(item.get<std::string>());
  }
  return words;
}

Result<AdapterValue> adapter_value(const std::string& name, const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return malformed(fmt::format("parameter \"{}\" is {}", name, value.dump()));
  std::vector<double> numbers;
  for (const Json& item : value) {
    if (!item.is_number()) return malformed(fmt::format("parameter \"{}\" needs numbers, {} is none", name, item.dump()));
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

// Reads the files that it names.
Result<Edit> adapters_edit(const Json& entry, const ModelPlan& plan) {
  if (entry.contains("router")) return malformed("adapters has no field \"router\": what routes them is its \"adapter_router\"");
  SY_CHECK(check_keys(entry, {"files", "modules", "adapter_router", "parameters"}));
  SetAdapters edit;
  SY_TRY(edit.layers, layers_in(entry));
  SY_TRY(edit.modules, words_in(entry, "modules"));
  AdapterChoice choice;
  if (!entry.contains("files")) return malformed("needs \"files\": PEFT folders or adapter files; [] ends it");
  SY_TRY(choice.files, words_in(entry, "files"));
  if (choice.files.empty()) {
    if (entry.contains("adapter_router") || entry.contains("parameters")) return malformed("without files there is no router");
    return edit;
  }
  if (const auto router = entry.find("adapter_router"); router != entry.end()) {
    if (!router->is_string()) return malformed(fmt::format("adapter_router is {}, needs a word", router->dump()));
    choice.router = router->get<std::string>();
  }
  if (const auto parameters = entry.find("parameters"); parameters != entry.end()) {
    if (!parameters->is_object()) return malformed("parameters is no object");
    for (const auto& [key, value] : parameters->items()) {
      SY_TRY(AdapterValue parsed, adapter_value(key, value));
      choice.parameters.emplace(key, std::move(parsed));
    }
  }
  SY_TRY(edit.adapters.set, make_adapters(choice, edit.layers.layers, edit.modules, plan));
  return edit;
}

// Routers that choose the path at the prefill.
Result<Edit> path_chooser(const Json& entry) {
  LayerPath path;
  if (!entry["routers"].is_string()) return malformed("routers is no word, needs the path of a file");
  path.chooser.file = entry["routers"].get<std::string>();
  if (const auto budget = entry.find("budget"); budget != entry.end()) {
    if (!budget->is_number()) return malformed(fmt::format("budget is {}, needs a number", budget->dump()));
    path.chooser.budget = budget->get<double>();
  }
  SY_TRY(path.chooser.routers, read_path_routers(path.chooser.file));
  return path;
}

// The layers in the order in which they run, each as often as it does: indices and ranges, or "all" for once each.
Result<Edit> layer_path(const Json& entry, const ModelPlan& plan) {
  if (entry.contains("layer") || entry.contains("router")) return malformed("layer_path takes \"layers\", the whole path");
  SY_CHECK(check_keys(entry, {"layers", "routers", "budget"}));
  if (entry.contains("routers")) {
    if (entry.contains("layers")) return malformed("takes \"layers\" or \"routers\", not both");
    return path_chooser(entry);
  }
  const auto found = entry.find("layers");
  if (found == entry.end()) return malformed("needs \"layers\", a list, or \"routers\", a file");
  if (entry.contains("budget")) return malformed("\"budget\" belongs to \"routers\"");
  if (*found == "all") return LayerPath{};
  const Json list = found->is_array() ? *found : Json::array({*found});
  std::vector<int> path;
  for (const Json& item : list) {
    if (item.is_string()) {
      SY_TRY(const std::vector<int> range, layer_range(item.get<std::string>()));
      path.insert(path.end(), range.begin(), range.end());
    } else {
      SY_TRY(const int64_t layer, integer_in(item, "layers", 0, 65535));
      path.push_back(static_cast<int>(layer));
    }
  }
  const int count = static_cast<int>(plan.layers.size());
  std::vector<uint8_t> passes(size_t(count), 0);
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] >= count) return malformed(fmt::format("there is no layer {}; the model has layers 0 to {}", path[i], count - 1));
    if (i > 0 && path[i] < path[i - 1])
      return malformed(fmt::format("the path goes back from layer {} to {}; layers run in the model's order, a repeated one right behind itself",
                                   path[i - 1], path[i]));
    if (passes[size_t(path[i])] < 255) ++passes[size_t(path[i])];
  }
  return LayerPath{.passes = std::move(passes), .chooser = {}};
}

Result<Edit> edit_in(const Json& entry, const ModelPlan& plan) {
  const auto found = entry.find("kind");
  if (found == entry.end() || !found->is_string()) return malformed("needs \"kind\", a word");
  const std::string kind = found->get<std::string>();
  if (kind == "layer_path") return layer_path(entry, plan);
  if (const auto router = entry.find("router"); router != entry.end() && *router != "mlp" && *router != "attention")
    return malformed(fmt::format("router is {}, needs \"attention\" or \"mlp\"", router->dump()));
  if (kind == "mute") return expert_edit<Mute>(entry);
  if (kind == "unmute") return expert_edit<Unmute>(entry);
  if (kind == "force") return expert_edit<Force>(entry);
  if (kind == "unforce") return expert_edit<Unforce>(entry);
  if (kind == "bias") return value_edit<Bias>(entry);
  if (kind == "select_bias") return value_edit<SelectBias>(entry);
  if (kind == "expert_scale") return value_edit<ExpertScale>(entry);
  if (kind == "scheme") return scheme_edit(entry);
  if (kind == "router_row") return router_row(entry);
  if (kind == "swap") return members_edit<Swap>(entry);
  if (kind == "merge") return members_edit<Merge>(entry);
  if (kind == "clone") return members_edit<Clone>(entry);
  if (kind == "replace") return replace(entry);
  if (kind == "neuron_mask") return neuron_mask(entry);
  if (kind == "expert_kind") return expert_kind(entry);
  if (kind == "adapters") return adapters_edit(entry, plan);
  if (kind == "top_k") {
    SY_CHECK(check_keys(entry, {"k"}));
    SY_TRY(LayerSet layers, layers_in(entry));
    if (!entry.contains("k")) return malformed("needs \"k\"");
    SY_TRY(const int64_t k, integer_in(entry["k"], "k", 0, kNoExpert));
    return TopK{std::move(layers), static_cast<int>(k)};
  }
  if (kind == "temperature") {
    SY_CHECK(check_keys(entry, {"value"}));
    SY_TRY(LayerSet layers, layers_in(entry));
    SY_TRY(const float value, number_in(entry, "value"));
    return Temperature{std::move(layers), value};
  }
  return malformed(fmt::format("unknown kind \"{}\"", kind));
}

Result<EditCommand> command_in(const Json& entry, const ModelPlan& plan) {
  if (!entry.is_object()) return malformed("an entry is an object");
  SY_TRY(Edit edit, edit_in(entry, plan));
  SY_CHECK(validate(edit, plan));
  EditCommand command{std::move(edit), std::nullopt};
  if (const auto at = entry.find("at_token"); at != entry.end()) {
    SY_TRY(const int64_t token, integer_in(*at, "at_token", 0, kLargestToken));
    command.at_token = static_cast<uint64_t>(token);
  }
  SY_CHECK(check_time(command));
  return command;
}

// Edits that fit one by one may not fit together: applied in the order in which they take effect.
void check_together(const std::vector<EditCommand>& commands, const std::vector<int>& positions, const ModelPlan& plan,
                    std::vector<ScriptProblem>& problems) {
  std::vector<size_t> order(commands.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return commands[a].at_token.value_or(0) < commands[b].at_token.value_or(0); });
  Recipe recipe;
  for (const size_t i : order) {
    if (auto fits = validate(commands[i].edit, plan, recipe); !fits)
      problems.push_back({positions[i], fits.error().message(), fits.error().code});
    else
      apply(commands[i].edit, plan, recipe);
  }
}

Result<std::vector<Json>> entries_of(std::string_view json) {
  SY_TRY(Json document, parse_json(json, "edit script"));
  if (!document.is_object()) return malformed("an edit script is an object with \"edits\"");
  if (const auto schema = document.find("schema"); schema != document.end() && *schema != 1)
    return malformed(fmt::format("schema is {}, this version reads 1", schema->dump()));
  for (const auto& [key, value] : document.items())
    if (key != "schema" && key != "edits") return malformed(fmt::format("an edit script has no field \"{}\"", key));
  const auto edits = document.find("edits");
  if (edits == document.end() || !edits->is_array()) return malformed("needs \"edits\", a list");
  return edits->get<std::vector<Json>>();
}

}  // namespace

std::string to_json(const EditCommand& command) { return entry_json(command).dump(); }

std::string to_json_script(const std::vector<EditCommand>& commands) {
  OrderedJson edits = OrderedJson::array();
  for (const EditCommand& command : commands) edits.push_back(entry_json(command));
  return OrderedJson{{"schema", 1}, {"edits", std::move(edits)}}.dump();
}

Result<std::vector<EditCommand>> parse_script(std::string_view json, const ModelPlan& plan, std::vector<ScriptProblem>* problems) {
  std::vector<ScriptProblem> found;
  std::vector<EditCommand> commands;
  std::vector<int> positions;
  if (auto entries = entries_of(json); !entries) {
    found.push_back({-1, entries.error().message(), entries.error().code});
  } else {
    for (size_t i = 0; i < entries->size(); ++i) {
      if (auto command = command_in((*entries)[i], plan); command) {
        commands.push_back(std::move(*command));
        positions.push_back(static_cast<int>(i));
      } else {
        found.push_back({static_cast<int>(i), command.error().message(), command.error().code});
      }
    }
    check_together(commands, positions, plan, found);
  }
  std::stable_sort(found.begin(), found.end(), [](const ScriptProblem& a, const ScriptProblem& b) { return a.entry < b.entry; });
  if (problems) *problems = found;
  if (found.empty()) return commands;
  // Malformed outweighs "not for this model": exit 2 is for scripts that are sound.
  auto first = std::find_if(found.begin(), found.end(), [](const ScriptProblem& p) { return p.code == ErrorCode::kMalformed; });
  if (first == found.end()) first = found.begin();
  return fail(first->code, first->message, first->entry < 0 ? "edit script" : fmt::format("edits[{}]", first->entry));
}

}  // namespace switchyard

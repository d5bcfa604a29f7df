// switchyard recipe list, show, check and distil: the gating schemes, the edit kinds, what a script of them does to a
// model, and the files of schemes that are learned from a trace.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/text_input.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/adapters.h"
#include "engine/routing/edit.h"
#include "engine/base/atomic_file.h"
#include "engine/routing/scheme.h"
#include "engine/routing/scheme_file.h"
#include "engine/trace/distil.h"

namespace switchyard {
namespace {

struct Field {
  const char *name, *type, *meaning;
};
struct Kind {
  const char *name, *meaning, *example;  // example: an entry of a script
  std::vector<Field> fields;
  bool for_layers() const { return std::string_view(name) != "layer_path"; }  // not for the whole model and a whole sequence
};

constexpr Field kLayer = {"layer", "layers", "model layer index, a list, a range \"2-5\", or \"all\""};
constexpr Field kExpert = {"expert", "experts", "an id or a list of ids, from 0"};
constexpr Field kAtToken = {"at_token", "integer",
                            "optional; first token routed under the edit, from 0, prompt included"};

// Kinds of specs/cli.md that this version executes.
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {
      {"mute",
       "never selected: the logit is -inf before the softmax",
       R"({"kind":"mute","layer":3,"expert":5})",
       {kLayer, kExpert}},
      {"unmute", "ends a mute", R"({"kind":"unmute","layer":3,"expert":5})", {kLayer, kExpert}},
      {"force",
       "always selected; takes the last slot if not selected already",
       R"({"kind":"force","layer":3,"expert":5})",
       {kLayer, kExpert}},
      {"unforce", "ends a force", R"({"kind":"unforce","layer":3,"expert":5})", {kLayer, kExpert}},
      {"bias",
       "added to the logit: changes selection and weight",
       R"({"kind":"bias","layer":"all","expert":5,"value":0.5})",
       {kLayer, kExpert, {"value", "real", "added; 0 ends it"}}},
      {"select_bias",
       "added to the score for the selection only",
       R"({"kind":"select_bias","layer":3,"expert":5,"value":0.1})",
       {kLayer, kExpert, {"value", "real", "added; 0 ends it"}}},
      {"expert_scale",
       "the expert's output is multiplied",
       R"({"kind":"expert_scale","layer":3,"expert":5,"value":0})",
       {kLayer, kExpert, {"value", "real", "factor; 1 ends it"}}},
      {"top_k",
       "experts per token",
       R"({"kind":"top_k","layer":"2-5","k":2})",
       {kLayer, {"k", "integer", "from 1 to the number of experts; 0: the model's own"}}},
      {"temperature",
       "logits are divided by it",
       R"({"kind":"temperature","layer":"all","value":1.5})",
       {kLayer, {"value", "real", "above 0; 1 ends it"}}},
      {"router_row",
       "the router's weight row of an expert is multiplied, or another stands in its place",
       R"({"kind":"router_row","layer":3,"expert":5,"scale":0.5})",
       {kLayer,
        kExpert,
        {"scale", "real", "one of four: factor; 1 ends it"},
        {"copy_from", "expert", "one of four: the checkpoint's row of this expert; \"own\" ends it"},
        {"rotate_towards", "expert", "one of four: the own row turned towards that expert's; its length stays"},
        {"angle", "real", "with rotate_towards: degrees"},
        {"values", "reals", "one of four: as many as the hidden size"}}},
      {"swap",
       "two experts change places: their weights move, their router rows stay",
       R"({"kind":"swap","layer":3,"experts":[5,9]})",
       {kLayer, {"experts", "experts", "two ids"}}},
      {"merge",
       "the mean of the experts' weights runs in the first's place, the others are muted",
       R"({"kind":"merge","layer":3,"experts":[5,9],"weights":[2,1]})",
       {kLayer,
        {"experts", "experts", "two ids or more"},
        {"weights", "reals", "optional; of a weighted mean, one per expert"}}},
      {"clone",
       "the first expert's weights run in the places of all the others",
       R"({"kind":"clone","layer":3,"experts":[5,9]})",
       {kLayer, {"experts", "experts", "two ids or more"}}},
      {"replace",
       "a weighted sum of the checkpoint's experts runs in an expert's place; undoes swap, merge and clone",
       R"({"kind":"replace","layer":3,"expert":5,"from":[5,9],"weights":[0.5,0.5]})",
       {kLayer,
        kExpert,
        {"from", "experts", "ids, or \"own\": its own weights again"},
        {"weights", "reals", "optional; taken as they are, else equal and of sum 1"}}},
      {"neuron_mask",
       "hidden units of what runs in an expert's place are off",
       R"({"kind":"neuron_mask","layer":3,"expert":5,"neurons":[0,17]})",
       {kLayer, kExpert, {"neurons", "integers", "all that are off, from 0; [] ends it"}}},
      {"expert_kind",
       "an expert of another kind runs in an expert's place",
       R"({"kind":"expert_kind","layer":3,"expert":5,"to":"identity"})",
       {kLayer,
        kExpert,
        {"to", "word", "own, swiglu, gelu_mlp, gru, identity, null, constant or local; own ends it"},
        {"file", "file", "optional; of all but own, identity and null: safetensors with layers.{layer}.experts.{expert}.…"}}},
      {"scheme",
       "routes by a gating scheme in place of the model's own score, selection and weights",
       R"({"kind":"scheme","layer":"all","name":"top_p","parameters":{"p":0.6}})",
       {kLayer, {"name", "word", "a scheme of recipe list; native ends it"}, {"parameters", "object", "optional; those that differ from their defaults"}}},
      {"adapters",
       "routed low-rank adapters (LoRA) beside the weights of linear layers",
       R"({"kind":"adapters","layer":"all","modules":["q_proj"],"files":["adapters.safetensors"],"adapter_router":"arrow","parameters":{"k":2}})",
       {{"layer", "layers", "model layer index, with experts or without, a list, a range \"2-5\", or \"all\""},
        {"files", "paths", "PEFT folders, or safetensors files with lora.MODULE.E.A and .B; [] takes the adapters away"},
        {"modules", "words", "optional; linear layers by name or the end of it, as q_proj; else all that the files have"},
        {"adapter_router", "word", "optional; an adapter router of recipe list, fixed if absent"},
        {"parameters", "object", "optional; those that differ from their defaults"}}},
      {"layer_path",
       "skips or repeats whole layers, for a whole sequence; in a running session from the next prefill on",
       R"({"kind":"layer_path","layers":["0-2",2,4,5]})",
       {{"layers", "path", "the layers that run, in the model's order: indices and ranges, a repeated one right behind itself (at most 4 times); \"all\" ends it"},
        {"routers", "file", "optional, in place of layers: safetensors with layers.{layer}.drllm.l1.weight, .l1.bias, .l2.weight, .l2.bias, which choose the path of each prompt"},
        {"budget", "real", "optional, of routers: -1 skips all it can, -0.5 is the routers alone, 0.5 runs all, 1 repeats all; -0.5"}}},
  };
  return list;
}

Document fields_json(const Kind& kind) {
  Document fields = Document::array();
  for (const Field& field : kind.fields)
    fields.push_back({{"name", field.name}, {"type", field.type}, {"meaning", field.meaning}});
  if (kind.for_layers() && kind.name != std::string_view("adapters"))
    fields.push_back({{"name", "router"}, {"type", "word"}, {"meaning", "optional; of a layer with two routers (jetmoe): attention or mlp; mlp"}});
  if (kind.for_layers()) fields.push_back({{"name", kAtToken.name}, {"type", kAtToken.type}, {"meaning", kAtToken.meaning}});
  return fields;
}

Document kind_json(const Kind& kind) {
  return {{"kind", kind.name},
          {"meaning", kind.meaning},
          {"fields", fields_json(kind)},
          {"example", Document::parse(kind.example)}};
}

const char* type_name(SchemeParameter::Type type) {
  switch (type) {
    case SchemeParameter::Type::kReal: return "real";
    case SchemeParameter::Type::kInteger: return "integer";
    case SchemeParameter::Type::kBoolean: return "boolean";
    case SchemeParameter::Type::kChoice: return "choice";
    case SchemeParameter::Type::kExperts: return "experts";
    case SchemeParameter::Type::kFile: return "file";
  }
  return "";
}

Document value_json(const SchemeParameter& parameter) {
  if (parameter.type == SchemeParameter::Type::kInteger) return int64_t(std::get<double>(parameter.standard));
  return std::visit([](const auto& value) { return Document(value); }, parameter.standard);
}

Document scheme_json(const SchemeInfo& scheme) {
  Document parameters = Document::array();
  for (const SchemeParameter& parameter : scheme.parameters) {
    Document one = {{"name", parameter.name}, {"type", type_name(parameter.type)}, {"default", value_json(parameter)}};
    if (parameter.type == SchemeParameter::Type::kReal || parameter.type == SchemeParameter::Type::kInteger)
      one["min"] = parameter.min, one["max"] = parameter.max;
    if (!parameter.choices.empty()) one["choices"] = parameter.choices;
    one["meaning"] = parameter.meaning;
    parameters.push_back(std::move(one));
  }
  return {{"name", scheme.name},
          {"title", scheme.title},
          {"source", scheme.source},
          {"exact", scheme.exact},
          {"formula", scheme.formula},
          {"parameters", std::move(parameters)},
          {"causal", scheme.causal},
          {"batch_coupled", scheme.batch_coupled},
          {"stochastic", scheme.stochastic},
          {"token_only", scheme.token_only},
          {"needs", scheme.needs}};
}

const char* type_name(AdapterParameter::Type type) {
  switch (type) {
    case AdapterParameter::Type::kReal: return "real";
    case AdapterParameter::Type::kInteger: return "integer";
    case AdapterParameter::Type::kBoolean: return "boolean";
    case AdapterParameter::Type::kChoice: return "choice";
    case AdapterParameter::Type::kReals: return "reals";
  }
  return "";
}

Document router_json(const AdapterRouterInfo& router) {
  Document parameters = Document::array();
  for (const AdapterParameter& parameter : router.parameters) {
    Document one = {{"name", parameter.name}, {"type", type_name(parameter.type)}};
    one["default"] = parameter.type == AdapterParameter::Type::kInteger ? Document(int64_t(std::get<double>(parameter.standard)))
                                                                        : std::visit([](const auto& v) { return Document(v); }, parameter.standard);
    if (parameter.max > parameter.min) one["min"] = parameter.min, one["max"] = parameter.max;
    if (!parameter.choices.empty()) one["choices"] = parameter.choices;
    one["meaning"] = parameter.meaning;
    parameters.push_back(std::move(one));
  }
  return {{"name", router.name}, {"title", router.title}, {"source", router.source}, {"exact", router.exact},
          {"formula", router.formula}, {"needs", router.needs}, {"parameters", std::move(parameters)}};
}

std::vector<std::string> names_of_list() {
  std::vector<std::string> names;
  for (const SchemeInfo& scheme : schemes()) names.emplace_back(scheme.name);
  for (const AdapterRouterInfo& router : adapter_routers()) names.emplace_back(router.name);
  for (const Kind& kind : kinds()) names.emplace_back(kind.name);
  return names;
}

Result<int> list(Cli& cli) {
  if (cli.output.json()) {
    Document edits = Document::array(), gates = Document::array(), routers = Document::array();
    for (const AdapterRouterInfo& router : adapter_routers()) routers.push_back(router_json(router));
    for (const SchemeInfo& scheme : schemes()) gates.push_back(scheme_json(scheme));
    for (const Kind& kind : kinds()) edits.push_back(kind_json(kind));
    Document examples = Document::array();
    for (const std::string& file : scheme_examples()) examples.push_back({{"scheme", file.substr(0, file.rfind('.'))}, {"file", file}});
    cli.output.json({{"schema", kSchema}, {"schemes", gates}, {"adapter_routers", routers}, {"edits", edits}, {"examples", examples}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const SchemeInfo& scheme : schemes()) {
    std::string parameters;
    for (const SchemeParameter& parameter : scheme.parameters)
      parameters += fmt::format("{}{}", parameters.empty() ? "" : ", ", parameter.name);
    rows.push_back({scheme.name, parameters, fmt::format("{} ({}{})", scheme.title, scheme.exact ? "" : "inspired by ", scheme.source)});
  }
  cli.output.data("Gating schemes\n");
  cli.output.table(rows);
  if (const std::vector<std::string> examples = scheme_examples(); !examples.empty()) {
    cli.output.data("\nFiles of seeded weights for the demo, by name in a scheme's parameter \"file\"\n");
    rows.clear();
    for (const std::string& file : examples) rows.push_back({file.substr(0, file.rfind('.')), file});
    cli.output.table(rows);
  }
  cli.output.data("\nAdapter routers (edit kind adapters)\n");
  rows.clear();
  for (const AdapterRouterInfo& router : adapter_routers()) {
    std::string parameters;
    for (const AdapterParameter& parameter : router.parameters)
      parameters += fmt::format("{}{}", parameters.empty() ? "" : ", ", parameter.name);
    rows.push_back({router.name, parameters, fmt::format("{} ({}{})", router.title, router.exact ? "" : "inspired by ", router.source)});
  }
  cli.output.table(rows);
  cli.output.data("\nEdits\n");
  rows.clear();
  for (const Kind& kind : kinds()) {
    std::string fields;
    for (const Field& field : kind.fields) fields += fmt::format("{}{}", fields.empty() ? "" : ", ", field.name);
    rows.push_back({kind.name, fields, kind.meaning});
  }
  cli.output.table(rows);
  return 0;
}

void show_scheme(Cli& cli, const SchemeInfo& scheme) {
  if (cli.output.json()) {
    Document document = {{"schema", kSchema}};
    document.update(scheme_json(scheme));
    cli.output.json(document);
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {scheme.name, scheme.title}, {"  source", scheme.source}, {"  fidelity", scheme.exact ? "exact" : "inspired by"}, {"  formula", scheme.formula}};
  std::string traits;
  const auto add = [&](bool holds, const char* words) {
    if (holds) traits += fmt::format("{}{}", traits.empty() ? "" : ", ", words);
  };
  add(!scheme.causal, "not causal");
  add(scheme.batch_coupled, "looks at all tokens that run together");
  add(scheme.stochastic, "random by seed");
  add(scheme.token_only, "known from the token id alone");
  for (const char* need : scheme.needs) add(true, need);
  if (!traits.empty()) rows.push_back({"  traits", traits});
  for (const SchemeParameter& parameter : scheme.parameters) {
    std::string range = value_json(parameter).dump();
    if (!parameter.choices.empty()) {
      range += ", of";
      for (const char* one : parameter.choices) range += fmt::format(" {}", one);
    } else if (std::holds_alternative<double>(parameter.standard)) {
      range += fmt::format(", {:g} to {:g}", parameter.min, parameter.max);
    }
    rows.push_back({std::string("  ") + parameter.name, fmt::format("{} (default {})", parameter.meaning, range)});
  }
  cli.output.table(rows);
  const std::string example = example_of(scheme.name);
  cli.output.data(fmt::format("\n{{\"schema\":1,\"edits\":[{{\"kind\":\"scheme\",\"layer\":\"all\",\"name\":\"{}\"{}}}]}}\n", scheme.name,
                              example.empty() ? "" : fmt::format(",\"parameters\":{{\"file\":\"{}\"}}", example)));
}

void show_router(Cli& cli, const AdapterRouterInfo& router) {
  if (cli.output.json()) {
    Document document = {{"schema", kSchema}};
    document.update(router_json(router));
    cli.output.json(document);
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {router.name, fmt::format("adapter router: {}", router.title)}, {"  source", router.source}, {"  fidelity", router.exact ? "exact" : "inspired by"}, {"  formula", router.formula}};
  if (*router.needs) rows.push_back({"  needs", router.needs});
  for (const AdapterParameter& parameter : router.parameters) {
    std::string range = router_json(router)["parameters"][size_t(&parameter - router.parameters.data())]["default"].dump();
    if (!parameter.choices.empty()) {
      range += ", of";
      for (const char* one : parameter.choices) range += fmt::format(" {}", one);
    } else if (parameter.max > parameter.min) {
      range += fmt::format(", {:g} to {:g}", parameter.min, parameter.max);
    }
    rows.push_back({std::string("  ") + parameter.name, fmt::format("{} (default {})", parameter.meaning, range)});
  }
  cli.output.table(rows);
  cli.output.data(fmt::format("\n{{\"schema\":1,\"edits\":[{{\"kind\":\"adapters\",\"layer\":\"all\",\"files\":[\"FILE\"],\"adapter_router\":\"{}\"}}]}}\n", router.name));
}

Result<int> show(Cli& cli, const std::string& name) {
  std::vector<std::string> names;
  const SchemeInfo* scheme = find_scheme(name);  // top_k names an edit too
  const bool is_edit = std::any_of(kinds().begin(), kinds().end(), [&](const Kind& kind) { return name == kind.name; });
  const AdapterRouterInfo* router = find_adapter_router(name);  // dynmole is a scheme too
  if (scheme && !is_edit) {
    show_scheme(cli, *scheme);
    if (router && !cli.output.json()) cli.output.data("\n"), show_router(cli, *router);
    return 0;
  }
  if (router) {
    show_router(cli, *router);
    return 0;
  }
  for (const AdapterRouterInfo& one : adapter_routers()) names.push_back(one.name);
  for (const SchemeInfo& one : schemes()) names.push_back(one.name);
  for (const Kind& kind : kinds()) {
    names.push_back(kind.name);
    if (name != kind.name) continue;
    if (cli.output.json()) {
      Document document = {{"schema", kSchema}};
      document.update(kind_json(kind));
      if (scheme) document.update(scheme_json(*scheme));
      cli.output.json(document);
      return 0;
    }
    std::vector<std::vector<std::string>> rows = {{kind.name, kind.meaning}};
    for (const Field& field : kind.fields) rows.push_back({std::string("  ") + field.name, field.meaning});
    if (kind.for_layers()) rows.push_back({std::string("  ") + kAtToken.name, kAtToken.meaning});
    cli.output.table(rows);
    cli.output.data(fmt::format("\n{{\"schema\":1,\"edits\":[{}]}}\n", kind.example));
    if (scheme) {
      cli.output.data("\nThe gating scheme of that name:\n");
      show_scheme(cli, *scheme);
    }
    return 0;
  }
  const std::string meant = did_you_mean(name, names);
  return fail(ErrorCode::kUsage,
              fmt::format("{} is no gating scheme, adapter router or edit kind.{}", quote(name), meant.empty() ? "" : " Did you mean " + meant + "?"),
              {}, "See switchyard recipe list.");
}

Result<int> check(Cli& cli, const std::string& file, const std::string& model) {
  SY_TRY(const std::string text, read_text(file));
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(model));
  std::vector<ScriptProblem> problems;
  const auto script = parse_script(text, checkpoint.plan, &problems);
  if (cli.output.json()) {
    Document found = Document::array();
    for (const ScriptProblem& problem : problems)
      found.push_back({{"entry", problem.entry}, {"message", problem.message}});
    cli.output.json({{"schema", kSchema}, {"ok", script.has_value()}, {"problems", found}});
  } else if (script) {
    for (const EditCommand& command : *script)
      cli.output.data(describe(command.edit) +
                      (command.at_token ? fmt::format(" from token {} on", *command.at_token) : "") + "\n");
  } else {
    for (const ScriptProblem& problem : problems)
      cli.output.data((problem.entry < 0 ? "" : fmt::format("edits[{}]: ", problem.entry)) +
                      printable(problem.message, 400) + "\n");
  }
  return script ? 0 : static_cast<int>(ErrorCode::kCheckFailed);
}

struct DistilOptions {
  std::string trace, model, kind = "table", out;
  double c = 2;
};

Result<int> distil(Cli& cli, const DistilOptions& options) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto trace, TraceReader::open(options.trace, &task));
  const TraceInfo& info = trace->info();
  if (info.moe_layers != checkpoint.plan.moe_layers || info.experts != checkpoint.plan.max_experts())
    return fail(ErrorCode::kUsage, fmt::format("the trace has {} routers of {} experts, {} has {} of {}.", info.layers, info.experts, checkpoint.name,
                                               checkpoint.plan.moe_layers.size(), checkpoint.plan.max_experts()),
                options.trace, "Give the model that was recorded.");
  const bool table = options.kind == "table";
  SY_TRY(const Distilled found, table ? distil_token_router(*trace, checkpoint.plan.vocab, &task) : distil_thresholds(*trace, options.c, &task));
  SY_CHECK(write_file(options.out, scheme_file_bytes(found.file), cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
  if (cli.output.json()) {
    Document document = {{"schema", kSchema}, {"kind", options.kind}, {"file", options.out}, {"tokens", info.tokens}, {"moe_layers", info.moe_layers}};
    if (table) document["token_ids_seen"] = found.token_ids_seen, document["agreement"] = found.agreement;
    cli.output.json(document);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"file", options.out}, {"tokens", fmt::format("{}", info.tokens)}};
  if (table) rows.push_back({"token ids seen", fmt::format("{} of {}", found.token_ids_seen, checkpoint.plan.vocab)});
  for (size_t row = 0; row < found.agreement.size(); ++row)
    rows.push_back({fmt::format("layer {}", info.moe_layers[row]), fmt::format("{:.1f} % of the first choices follow the token id alone", 100 * found.agreement[row])});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_recipe(CLI::App& app, Cli& cli) {
  auto* noun = add_command(app, "recipe", "Gating schemes, edit kinds, and edit scripts checked against a model.",
                           "  switchyard recipe list\n"
                           "  switchyard recipe show top_p\n"
                           "  switchyard recipe check edits.json demo");
  noun->require_subcommand(1);
  auto* listing = add_command(*noun, "list", "Every gating scheme and adapter router with its parameters, every edit kind with its fields.", "  switchyard recipe list --json");
  listing->callback([&cli] { cli.action = [&cli] { return list(cli); }; });

  auto* showing =
      add_command(*noun, "show", "One gating scheme, adapter router or edit kind: meaning, formula, parameters, example.", "  switchyard recipe show top_p\n  switchyard recipe show bias");
  const auto name = std::make_shared<std::string>();
  showing->add_option("KIND", *name, "A name of recipe list")->required()->check(suggested(names_of_list()));
  showing->callback([&cli, name] { cli.action = [&cli, name] { return show(cli, *name); }; });

  auto* checking = add_command(*noun, "check", "Checks a script against a model; exit 9 when it does not fit.",
                               "  switchyard recipe check edits.json demo\n"
                               "  switchyard recipe check - demo --json < edits.json");
  auto* distilling = add_command(*noun, "distil", "Learns the file of a scheme from a trace: a token-id router, or expert-choice thresholds.",
                                 "  switchyard recipe distil run.moetrace.h5 demo -o table.safetensors\n"
                                 "  switchyard recipe distil run.moetrace.h5 demo --kind threshold -o theta.safetensors");
  const auto distilled = std::make_shared<DistilOptions>();
  distilling->add_option("TRACE", distilled->trace, "A *.moetrace.h5 file")->required();
  distilling->add_option("MODEL", distilled->model, "The model that was recorded")->required();
  distilling->add_option("--kind", distilled->kind, "table (stable_moe, hash) or threshold (expert_choice)")->check(CLI::IsMember({"table", "threshold"}))->type_name("KIND");
  distilling->add_option("--c", distilled->c, "Experts per token on average, of threshold")->check(CLI::Range(0.01, 64.0))->capture_default_str();
  distilling->add_option("-o,--output", distilled->out, "The safetensors file to write")->required()->type_name("FILE");
  distilling->callback([&cli, distilled] { cli.action = [&cli, distilled] { return distil(cli, *distilled); }; });

  const auto inputs = std::make_shared<std::pair<std::string, std::string>>();
  checking->add_option("FILE", inputs->first, "An edit script; - is stdin")->required();
  checking->add_option("MODEL", inputs->second, "A folder, org/name of the HF cache, or demo")->required();
  checking->callback(
      [&cli, inputs] { cli.action = [&cli, inputs] { return check(cli, inputs->first, inputs->second); }; });
}

}  // namespace switchyard

// switchyard recipe list, show and check: the edit kinds and what a script of them does to a model.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/help.h"
#include "app/cli/text_input.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"

namespace switchyard {
namespace {

struct Field {
  const char *name, *type, *meaning;
};
struct Kind {
  const char *name, *meaning, *example;  // example: an entry of a script
  std::vector<Field> fields;
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
       "the router's weight row of an expert is multiplied",
       R"({"kind":"router_row","layer":3,"expert":5,"scale":0.5})",
       {kLayer, kExpert, {"scale", "real", "factor; 1 ends it"}}},
  };
  return list;
}

Document fields_json(const Kind& kind) {
  Document fields = Document::array();
  for (const Field& field : kind.fields)
    fields.push_back({{"name", field.name}, {"type", field.type}, {"meaning", field.meaning}});
  fields.push_back({{"name", kAtToken.name}, {"type", kAtToken.type}, {"meaning", kAtToken.meaning}});
  return fields;
}

Document kind_json(const Kind& kind) {
  return {{"kind", kind.name},
          {"meaning", kind.meaning},
          {"fields", fields_json(kind)},
          {"example", Document::parse(kind.example)}};
}

Result<int> list(Cli& cli) {
  if (cli.output.json()) {
    Document edits = Document::array();
    for (const Kind& kind : kinds()) edits.push_back(kind_json(kind));
    cli.output.json({{"schema", kSchema}, {"schemes", Document::array()}, {"edits", edits}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Kind& kind : kinds()) {
    std::string fields;
    for (const Field& field : kind.fields) fields += fmt::format("{}{}", fields.empty() ? "" : ", ", field.name);
    rows.push_back({kind.name, fields, kind.meaning});
  }
  cli.output.table(rows);
  return 0;
}

Result<int> show(Cli& cli, const std::string& name) {
  std::vector<std::string> names;
  for (const Kind& kind : kinds()) {
    names.push_back(kind.name);
    if (name != kind.name) continue;
    if (cli.output.json()) {
      Document document = {{"schema", kSchema}};
      document.update(kind_json(kind));
      cli.output.json(document);
      return 0;
    }
    std::vector<std::vector<std::string>> rows = {{kind.name, kind.meaning}};
    for (const Field& field : kind.fields) rows.push_back({std::string("  ") + field.name, field.meaning});
    rows.push_back({std::string("  ") + kAtToken.name, kAtToken.meaning});
    cli.output.table(rows);
    cli.output.data(fmt::format("\n{{\"schema\":1,\"edits\":[{}]}}\n", kind.example));
    return 0;
  }
  const std::string meant = did_you_mean(name, names);
  return fail(ErrorCode::kUsage,
              fmt::format("{} is no edit kind.{}", quote(name), meant.empty() ? "" : " Did you mean " + meant + "?"),
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

}  // namespace

void add_recipe(CLI::App& app, Cli& cli) {
  auto* noun = add_command(app, "recipe", "Edit kinds, and edit scripts checked against a model.",
                           "  switchyard recipe list\n"
                           "  switchyard recipe show mute\n"
                           "  switchyard recipe check edits.json demo");
  noun->require_subcommand(1);
  auto* listing = add_command(*noun, "list", "Every edit kind with its fields.", "  switchyard recipe list --json");
  listing->callback([&cli] { cli.action = [&cli] { return list(cli); }; });

  auto* showing =
      add_command(*noun, "show", "One edit kind: meaning, fields, example.", "  switchyard recipe show bias");
  const auto name = std::make_shared<std::string>();
  showing->add_option("KIND", *name, "A name of recipe list")->required();
  showing->callback([&cli, name] { cli.action = [&cli, name] { return show(cli, *name); }; });

  auto* checking = add_command(*noun, "check", "Checks a script against a model; exit 9 when it does not fit.",
                               "  switchyard recipe check edits.json demo\n"
                               "  switchyard recipe check - demo --json < edits.json");
  const auto inputs = std::make_shared<std::pair<std::string, std::string>>();
  checking->add_option("FILE", inputs->first, "An edit script; - is stdin")->required();
  checking->add_option("MODEL", inputs->second, "A folder, org/name of the HF cache, or demo")->required();
  checking->callback(
      [&cli, inputs] { cli.action = [&cli, inputs] { return check(cli, inputs->first, inputs->second); }; });
}

}  // namespace switchyard

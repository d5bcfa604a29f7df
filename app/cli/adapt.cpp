// switchyard adapt: biases of the routers found on a text, written as an edit script.
#include <filesystem>

#include <fmt/format.h>

#include "app/cli/adapt_input.h"
#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "engine/base/atomic_file.h"
#include "engine/runtime/adapt.h"

namespace switchyard {
namespace {

struct Options : EditedTextInput {
  std::string out;
  AdaptInputOptions adapt;
  Options() { backend.name.clear(); }  // as the method needs
};

Document document_of(const Adaptation& found, AdaptMethod method, const ModelPlan& plan, const std::string& backend) {
  Document steps = Document::array(), layers = Document::array();
  for (const AdaptStep& step : found.steps) steps.push_back(json_of(step));
  for (const int row : found.rows) layers.push_back(plan.moe_layers[row]);
  Document edits = Document::array();
  for (const EditCommand& edit : found.edits) edits.push_back(Document::parse(to_json(edit)));
  return {{"schema", kSchema},
          {"method", name(method)},
          {"backend", backend},
          {"layers", layers},
          {"confidence", found.confidence},
          {"loss_before", found.loss_before},
          {"loss_after", found.loss_after},
          {"rerouted", found.rerouted},
          {"path_distance", found.path_distance},
          {"norms", found.norms},
          {"steps", steps},
          {"edits", edits}};
}

Result<int> run(Cli& cli, Options options) {
  const AdaptOptions how = options.adapt.options();
  if (options.backend.name.empty()) options.backend.name = how.method == AdaptMethod::kRewire ? "reference" : "auto";
  if (!options.out.empty() && std::filesystem::exists(options.out) && !cli.output.options.force)
    return fail(ErrorCode::kOutput, "exists already.", options.out, "Give --force to write over it.");
  SY_TRY(const EditedText text, options.read(2));
  const ModelPlan& plan = text.checkpoint.plan;

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.open(text, task));
  SY_TRY(const auto weights, WeightStore::open(text.checkpoint, &task));
  SY_TRY(const Adaptation found, adapt({.backend = *backend, .plan = plan, .tokens = text.ids, .start = text.recipe, .weights = weights.get()}, how, &task));

  if (!options.out.empty()) {
    std::vector<EditCommand> all = text.edits;
    all.insert(all.end(), found.edits.begin(), found.edits.end());
    SY_CHECK(write_file(options.out, to_json_script(all) + "\n", cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
    cli.output.info(fmt::format("{} edits written to {}", found.edits.size(), options.out));
  }
  if (cli.output.json()) {
    cli.output.json(document_of(found, how.method, plan, backend->info().name));
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"loss before", fmt::format("{:.6f} nats per token over {}", found.loss_before, text.ids.size() - 1)},
                                                {"loss after", fmt::format("{:.6f}, so {:+.6f}", found.loss_after, found.loss_after - found.loss_before)}};
  for (size_t i = 0; i < found.steps.size(); ++i)
    rows.push_back({fmt::format("step {}", i), fmt::format("loss {:.6f}, {:.2f} % of the decisions moved", found.steps[i].loss, 100 * found.steps[i].rerouted)});
  std::string layers;
  for (const int row : found.rows) layers += fmt::format("{}{}", layers.empty() ? "" : ", ", plan.moe_layers[row]);
  rows.push_back({"layers", layers});
  rows.push_back({"rerouted", fmt::format("{:.2f} % of the decisions, {:.2f} experts of a token's path", 100 * found.rerouted, found.path_distance)});
  rows.push_back({"edits", fmt::format("{} {}", found.edits.size(), how.method == AdaptMethod::kEma ? "schemes and router rows" : "biases")});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_adapt(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "adapt", "Adapts the routers to a text, by logit biases or by moving centres; writes it as an edit script.",
                              "  switchyard adapt demo --text-file assets/prompts/python.txt --out biases.json\n"
                              "  switchyard adapt demo --text-file notes.txt --method spsa --steps 20 --json");
  const auto options = std::make_shared<Options>();
  options->add_options(*command);
  options->adapt.add_options(*command, "--method", "--");
  command->add_option("--out", options->out, "Edit script to write")->type_name("FILE");
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

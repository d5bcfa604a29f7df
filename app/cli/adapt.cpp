// switchyard adapt: biases of the routers found on a text, written as an edit script.
#include <filesystem>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/text_input.h"
#include "engine/base/atomic_file.h"
#include "engine/runtime/adapt.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct Options {
  std::string model, method = "rewire", out;
  SequenceInput input;
  BackendChoice backend{.name = ""};
  EditsInput edits;
  AdaptOptions adapt;
};

Document document_of(const Adaptation& found, const Options& options, const ModelPlan& plan, const std::string& backend) {
  Document steps = Document::array(), layers = Document::array();
  for (const AdaptStep& step : found.steps)
    steps.push_back({{"loss", step.loss}, {"rerouted", step.rerouted}, {"norms", step.norms}});
  for (const int row : found.rows) layers.push_back(plan.moe_layers[row]);
  Document edits = Document::array();
  for (const EditCommand& edit : found.edits) edits.push_back(Document::parse(to_json(edit)));
  return {{"schema", kSchema},       {"method", options.method},       {"backend", backend},
          {"layers", layers},        {"confidence", found.confidence}, {"loss_before", found.loss_before},
          {"loss_after", found.loss_after}, {"steps", steps},          {"edits", edits}};
}

Result<int> run(Cli& cli, Options options) {
  if (options.method == "ema")
    return fail(ErrorCode::kUsage, "this version has no EMA prototypes: no backend hands out the router's inputs.", "--method",
                "Use rewire, spsa or usage-bias.");
  options.adapt.method = options.method == "spsa"         ? AdaptMethod::kSpsa
                         : options.method == "usage-bias" ? AdaptMethod::kUsageBias
                                                          : AdaptMethod::kRewire;
  if (options.backend.name.empty()) options.backend.name = options.adapt.method == AdaptMethod::kRewire ? "reference" : "auto";
  SY_CHECK(options.backend.check());
  if (!options.out.empty() && std::filesystem::exists(options.out) && !cli.output.options.force)
    return fail(ErrorCode::kOutput, "exists already.", options.out, "Give --force to write over it.");
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  SY_TRY(const std::vector<EditCommand> edits, options.edits.read(checkpoint.plan));
  Recipe start;
  for (const EditCommand& edit : edits) {
    if (edit.at_token.value_or(0) > 0) return fail(ErrorCode::kUsage, "an edit begins within the text.", "--edits", "Leave out at_token.");
    apply(edit.edit, checkpoint.plan, start);
  }
  if (!options.input.given())
    return fail(ErrorCode::kUsage, "no text given.", {}, "Give --text-file FILE (- is stdin), --text T or --token-ids 1,2,3.");
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  SY_TRY(const std::vector<TokenId> ids, options.input.ids(tokenizer ? tokenizer->get() : nullptr, checkpoint.plan.vocab));
  if (ids.size() > size_t(checkpoint.plan.context))
    return fail(ErrorCode::kUsage, fmt::format("the text has {} tokens, the model's context is {}.", ids.size(), checkpoint.plan.context));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(ids.size())));
  SY_TRY(const Adaptation found, adapt(*backend, checkpoint.plan, ids, start, options.adapt, &task));

  if (!options.out.empty()) {
    std::vector<EditCommand> all = edits;
    all.insert(all.end(), found.edits.begin(), found.edits.end());
    SY_CHECK(write_file(options.out, to_json_script(all) + "\n", cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
    cli.output.info(fmt::format("{} bias edits written to {}", found.edits.size(), options.out));
  }
  if (cli.output.json()) {
    cli.output.json(document_of(found, options, checkpoint.plan, backend->info().name));
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"loss before", fmt::format("{:.6f} nats per token over {}", found.loss_before, ids.size() - 1)},
                                                {"loss after", fmt::format("{:.6f}, so {:+.6f}", found.loss_after, found.loss_after - found.loss_before)}};
  for (size_t i = 0; i < found.steps.size(); ++i)
    rows.push_back({fmt::format("step {}", i), fmt::format("loss {:.6f}, {:.2f} % of the decisions moved", found.steps[i].loss, 100 * found.steps[i].rerouted)});
  std::string layers;
  for (const int row : found.rows) layers += fmt::format("{}{}", layers.empty() ? "" : ", ", checkpoint.plan.moe_layers[row]);
  rows.push_back({"layers", layers});
  rows.push_back({"edits", fmt::format("{} biases", found.edits.size())});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_adapt(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "adapt", "Adapts the routers to a text by logit biases; writes them as an edit script.",
                              "  switchyard adapt demo --text-file assets/prompts/python.txt --out biases.json\n"
                              "  switchyard adapt demo --text-file notes.txt --method spsa --steps 20 --json");
  const auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  options->input.add_options(*command, "--text", "--text-file");
  command->add_option("--method", options->method, "rewire (exact gradient), spsa (two forwards a step), usage-bias (sign rule)")
      ->check(CLI::IsMember({"rewire", "spsa", "usage-bias", "ema"}))
      ->type_name("NAME");
  command->add_option("--steps", options->adapt.steps, "Steps")->check(CLI::Range(1, 100000))->capture_default_str();
  command->add_option("--lr", options->adapt.lr, "Rate of Adam; gamma of usage-bias (negative balances)")->check(CLI::Range(-10.0, 10.0))->capture_default_str();
  command->add_option("--layer-share", options->adapt.layer_share, "Share of the layers that are adapted, those of largest C")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  command->add_flag("--least-uncertain", options->adapt.least_uncertain, "The layers of smallest C instead");
  command->add_option("--max-norm", options->adapt.max_norm, "Bound of a layer's bias; 0: none")->check(CLI::Range(0.0, 1e6))->capture_default_str();
  command->add_option("--perturbation", options->adapt.perturbation, "c of spsa")->check(CLI::Range(1e-6, 10.0))->capture_default_str();
  command->add_option("--seed", options->adapt.seed, "Of spsa")->capture_default_str();
  command->add_option("--out", options->out, "Edit script to write")->type_name("FILE");
  options->backend.add_options(*command);
  options->edits.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

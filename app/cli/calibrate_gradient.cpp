// switchyard calibrate gradient: what the loss of a text asks of every router logit, with all experts in sight and with
// those alone that ran.
#include <fmt/format.h>

#include "app/cli/calibrate_gradient.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/text_input.h"
#include "engine/analysis/gate_gradient.h"
#include "engine/backend/differentiable.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct Options {
  std::string model;
  SequenceInput input;
  BackendChoice backend{.name = "reference"};
  EditsInput edits;
  int top = 3;
};

// The experts that most tokens want, at most `most`; ties: lower id.
std::vector<int> most_wanted(const GateLens& lens, int most) {
  std::vector<int> order;
  for (size_t e = 0; e < lens.wanted.size(); ++e)
    if (lens.wanted[e] > 0) order.push_back(int(e));
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return lens.wanted[a] > lens.wanted[b]; });
  order.resize(std::min(order.size(), size_t(most)));
  return order;
}

Document document_of(const std::vector<GateLens>& lenses, const ModelPlan& plan, std::span<const TokenId> ids) {
  Document layers = Document::array();
  for (size_t row = 0; row < lenses.size(); ++row) {
    const GateLens& lens = lenses[row];
    Document tokens = Document::array();
    for (size_t t = 0; t < lens.tokens.size(); ++t) {
      const WantedExpert& wanted = lens.tokens[t];
      if (wanted.expert == kNoExpert) continue;
      tokens.push_back({{"token", t}, {"token_id", ids[t]}, {"expert", wanted.expert}, {"dense", wanted.dense}, {"sparse", wanted.sparse}});
    }
    layers.push_back({{"layer", plan.moe_layers[row]}, {"cosine", lens.cosine}, {"flips", lens.flips}, {"dense", lens.dense}, {"sparse", lens.sparse},
                      {"wanted", lens.wanted}, {"tokens", tokens}});
  }
  return {{"schema", kSchema}, {"tokens", ids.size()}, {"layers", layers}};
}

Result<int> run(Cli& cli, const Options& options) {
  SY_CHECK(options.backend.check());
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  SY_TRY(const std::vector<EditCommand> edits, options.edits.read(plan));
  Recipe recipe;
  for (const EditCommand& edit : edits) {
    if (edit.at_token.value_or(0) > 0) return fail(ErrorCode::kUsage, "an edit begins within the text.", "--edits", "Leave out at_token.");
    apply(edit.edit, plan, recipe);
  }
  if (!options.input.given())
    return fail(ErrorCode::kUsage, "no text given.", {}, "Give --text-file FILE (- is stdin), --text T or --token-ids 1,2,3.");
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  SY_TRY(const std::vector<TokenId> ids, options.input.ids(tokenizer ? tokenizer->get() : nullptr, plan.vocab));
  if (ids.size() > size_t(plan.context))
    return fail(ErrorCode::kUsage, fmt::format("the text has {} tokens, the model's context is {}.", ids.size(), plan.context));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(ids.size())));
  auto* differentiable = dynamic_cast<Differentiable*>(backend.get());
  if (!differentiable) return fail(ErrorCode::kUsage, "the " + backend->info().name + " backend has no gradients.", "--backend", "Use reference.");
  SY_TRY(const std::vector<GateTerms> terms, differentiable->gate_terms(ids, recipe, &task));
  std::vector<GateLens> lenses;
  for (size_t row = 0; row < terms.size(); ++row) lenses.push_back(gate_lens(terms[row], plan.routed(int(row)).router.experts));

  if (cli.output.json()) {
    cli.output.json(document_of(lenses, plan, ids));
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "cosine", "signs that differ", "tokens that want another", "wanted most"}};
  for (size_t row = 0; row < lenses.size(); ++row) {
    const GateLens& lens = lenses[row];
    uint64_t wanting = 0;
    for (const uint32_t count : lens.wanted) wanting += count;
    std::string most;
    for (const int expert : most_wanted(lens, options.top)) most += fmt::format("{}{} ({})", most.empty() ? "" : ", ", expert, lens.wanted[expert]);
    rows.push_back({plan.row_name(int(row)), fmt::format("{:.3f}", lens.cosine), fmt::format("{:.2f} %", 100.0 * double(lens.flips) / double(lens.tokens.size() * lens.wanted.size())),
                    fmt::format("{} of {}", wanting, lens.tokens.size()), most});
  }
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_calibrate_gradient(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "gradient", "What a text's loss asks of every router logit: experts that did not run and should have.",
                              "  switchyard calibrate gradient demo --text-file assets/prompts/python.txt\n"
                              "  switchyard calibrate gradient demo --text-file notes.txt --json");
  const auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  options->input.add_options(*command, "--text", "--text-file");
  command->add_option("--top", options->top, "Experts named per layer")->check(CLI::Range(1, 1000))->capture_default_str();
  options->backend.add_options(*command);
  options->edits.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

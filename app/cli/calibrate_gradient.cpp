// switchyard calibrate gradient: what the loss of a text asks of every router logit, with all experts in sight and with
// those alone that ran.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "engine/analysis/gate_gradient.h"
#include "engine/backend/differentiable.h"

namespace switchyard {
namespace {

struct Options : EditedTextInput {
  int top = 3;
  Options() { backend.name = "reference"; }
};

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
  SY_TRY(const EditedText text, options.read(2));
  const ModelPlan& plan = text.checkpoint.plan;
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.open(text, task));
  auto* differentiable = dynamic_cast<Differentiable*>(backend.get());
  if (!differentiable) return fail(ErrorCode::kUsage, "the " + backend->info().name + " backend has no gradients.", "--backend", "Use reference.");
  SY_TRY(const std::vector<GateTerms> terms, differentiable->gate_terms(text.ids, text.recipe, &task));
  std::vector<GateLens> lenses;
  for (size_t row = 0; row < terms.size(); ++row) lenses.push_back(gate_lens(terms[row], plan.routed(int(row)).router.experts));

  if (cli.output.json()) {
    cli.output.json(document_of(lenses, plan, text.ids));
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "cosine", "signs that differ", "tokens that want another", "wanted most"}};
  for (size_t row = 0; row < lenses.size(); ++row) {
    const GateLens& lens = lenses[row];
    uint64_t wanting = 0;
    for (const uint32_t count : lens.wanted) wanting += count;
    std::string most;
    for (const int expert : most_wanted(lens, size_t(options.top))) most += fmt::format("{}{} ({})", most.empty() ? "" : ", ", expert, lens.wanted[expert]);
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
  options->add_options(*command);
  command->add_option("--top", options->top, "Experts named per layer")->check(CLI::Range(1, 1000))->capture_default_str();
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

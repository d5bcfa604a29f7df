// switchyard calibrate lens: what each layer would predict if everything behind it were left out.
#include <algorithm>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/text_input.h"
#include "engine/runtime/lens_run.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct Options {
  std::string model;
  SequenceInput input;
  BackendChoice backend{.name = "reference"};
  EditsInput edits;
  int last = 64;
};

template <class Of>
Document of_tokens(const LensPlace& place, Of&& of) {
  Document out = Document::array();
  for (const LensReading& token : place.tokens) out.push_back(of(token));
  return out;
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
  if (ids.empty()) return fail(ErrorCode::kUsage, "the text has no token.");
  if (ids.size() > size_t(plan.context))
    return fail(ErrorCode::kUsage, fmt::format("the text has {} tokens, the model's context is {}.", ids.size(), plan.context));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(ids.size())));
  SY_TRY(const std::vector<LensPlace> places, logit_lens(*backend, plan, ids, recipe, size_t(options.last), &task));

  if (cli.output.json()) {
    Document out = Document::array();
    for (const LensPlace& place : places)
      out.push_back({{"layer", place.layer},
                     {"behind", sublayer_word(plan.layers[size_t(place.layer)].sublayers[size_t(place.sublayer)])},
                     {"mean_kl", place.mean_kl()},
                     {"agreement", place.agreement()},
                     {"mean_probability", place.mean_probability()},
                     {"kl", of_tokens(place, [](const LensReading& t) { return t.kl; })},
                     {"first", of_tokens(place, [](const LensReading& t) { return t.first; })},
                     {"rank", of_tokens(place, [](const LensReading& t) { return t.rank; })},
                     {"probability", of_tokens(place, [](const LensReading& t) { return t.probability; })}});
    const size_t shown = places.empty() ? 0 : places[0].tokens.size();
    cli.output.json({{"schema", kSchema}, {"tokens", ids.size()}, {"first_token", ids.size() - shown}, {"places", out}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "behind", "KL", "first choice is the model's", "probability of the model's"}};
  for (const LensPlace& place : places)
    rows.push_back({fmt::format("{}", place.layer), sublayer_word(plan.layers[size_t(place.layer)].sublayers[size_t(place.sublayer)]), fmt::format("{:.4f}", place.mean_kl()),
                    fmt::format("{:.1f} %", 100 * place.agreement()), fmt::format("{:.4f}", place.mean_probability())});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_calibrate_lens(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "lens", "The logit lens: what each layer would predict if everything behind it were left out.",
                              "  switchyard calibrate lens demo --text-file assets/prompts/python.txt\n"
                              "  switchyard calibrate lens demo --text \"The router\" --edits mute.edits.json --json");
  const auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  options->input.add_options(*command, "--text", "--text-file");
  command->add_option("--last", options->last, "Tokens that count, from the end; 0: all")->check(CLI::Range(0, 1 << 30))->capture_default_str();
  options->backend.add_options(*command);
  options->edits.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

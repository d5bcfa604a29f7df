// switchyard calibrate lens: what each layer would predict if everything behind it were left out.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "engine/runtime/lens_run.h"

namespace switchyard {
namespace {

struct Options : EditedTextInput {
  int last = 64;
  Options() { backend.name = "reference"; }
};

template <class Of>
Document of_tokens(const LensPlace& place, Of&& of) {
  Document out = Document::array();
  for (const LensReading& token : place.tokens) out.push_back(of(token));
  return out;
}

Result<int> run(Cli& cli, const Options& options) {
  SY_TRY(const EditedText text, options.read(1));
  const ModelPlan& plan = text.checkpoint.plan;
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.open(text, task));
  SY_TRY(const std::vector<LensPlace> places, logit_lens(*backend, plan, text.ids, text.recipe, size_t(options.last), &task));

  if (cli.output.json()) {
    Document out = Document::array();
    for (const LensPlace& place : places)
      out.push_back({{"layer", place.layer},
                     {"pass", place.pass},
                     {"behind", sublayer_word(plan.layers[size_t(place.layer)].sublayers[size_t(place.sublayer)])},
                     {"mean_kl", place.mean_kl()},
                     {"agreement", place.agreement()},
                     {"mean_probability", place.mean_probability()},
                     {"kl", of_tokens(place, [](const LensReading& t) { return t.kl; })},
                     {"first", of_tokens(place, [](const LensReading& t) { return t.first; })},
                     {"rank", of_tokens(place, [](const LensReading& t) { return t.rank; })},
                     {"probability", of_tokens(place, [](const LensReading& t) { return t.probability; })}});
    const size_t shown = places.empty() ? 0 : places[0].tokens.size();
    cli.output.json({{"schema", kSchema}, {"tokens", text.ids.size()}, {"first_token", text.ids.size() - shown}, {"places", out}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"behind", "KL", "first choice is the model's", "probability of the model's"}};
  for (const LensPlace& place : places)
    rows.push_back({place_name(place, plan), fmt::format("{:.4f}", place.mean_kl()), fmt::format("{:.1f} %", 100 * place.agreement()), fmt::format("{:.4f}", place.mean_probability())});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_calibrate_lens(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "lens", "The logit lens: what each layer would predict if everything behind it were left out.",
                              "  switchyard calibrate lens demo --text-file assets/prompts/python.txt\n"
                              "  switchyard calibrate lens demo --text \"The router\" --edits mute.edits.json --json");
  const auto options = std::make_shared<Options>();
  options->add_options(*command);
  command->add_option("--last", options->last, "Tokens that count, from the end; 0: all")->check(CLI::Range(0, 1 << 30))->capture_default_str();
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

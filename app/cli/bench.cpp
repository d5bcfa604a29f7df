// switchyard bench: speed of a backend and its share of what the machine can read (engine/runtime/bench.h).
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/help.h"
#include "app/cli/recording.h"
#include "engine/base/text.h"
#include "engine/runtime/bench.h"
#include "engine/runtime/forced_pass.h"

namespace switchyard {
namespace {

struct BenchArguments {
  std::string model;
  BenchOptions options;
  BackendChoice backend;
  RecordingOptions recording;
  EditsInput edits;
};

Document spread_json(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

Document watched_json(const Watched& one) {
  Document out = {{"level", one.level}, {"tokens_per_s", spread_json(one.tokens_per_s)}, {"cost", one.cost.share}};
  if (one.cost.low) out["cost_95"] = {*one.cost.low, *one.cost.high};
  return out;
}

Document result_json(const BenchResult& result) {
  Document capture = Document::array();
  for (const Watched& level : result.capture) capture.push_back(watched_json(level));
  Document out = {{"schema", kSchema},
          {"machine",
           {{"processor", result.machine.processor},
            {"cores", result.machine.cores},
            {"memory_bytes", result.machine.memory_bytes},
            {"kernel", result.machine.kernel},
            {"compiler", result.machine.compiler}}},
          {"backend", result.backend.name},
          {"backend_detail", result.backend.detail},
          {"threads", result.threads},
          {"prompt_tokens", result.prompt_tokens},
          {"new_tokens", result.new_tokens},
          {"repeat", result.repeat},
          {"ceiling",
           {{"read_gb_per_s", result.ceiling.gb_per_s},
            {"read_bytes", result.ceiling.bytes},
            {"memory_gb_per_s", result.ceiling.memory_gb_per_s}}},
          {"prefill", {{"tokens_per_s", spread_json(result.prefill_tokens_per_s)}}},
          {"decode",
           {{"tokens_per_s", spread_json(result.decode_tokens_per_s)},
            {"bytes_per_token", result.bytes_per_token},
            {"share_of_ceiling", result.share_of_ceiling}}},
          {"layers",
           {{"tokens_per_s", spread_json(result.layers_per_s)},
            {"bytes_per_token", result.layer_bytes_per_token},
            {"share_of_ceiling", result.layers_share_of_ceiling}}},
          {"capture", capture},
          {"other_load", result.other_load},
          {"noisy", result.noisy}};
  if (result.edited) out["edited"] = watched_json(*result.edited);
  return out;
}

std::string cost_text(const Cost& cost) {
  if (!cost.low) return fmt::format("costs {:.1f} %", 100 * cost.share);
  return fmt::format("costs {:.2f} % (95 %: {:.2f} to {:.2f})", 100 * cost.share, 100 * *cost.low, 100 * *cost.high);
}

std::string spread_text(const Spread& spread) {
  return fmt::format("{:.1f} tokens/s (min {:.1f}, max {:.1f})", spread.median, spread.min, spread.max);
}

void show(Output& out, const BenchResult& result) {
  std::vector<std::vector<std::string>> rows = {
      {"machine", fmt::format("{}, {} cores, {:.1f} GB", printable(result.machine.processor), result.machine.cores,
                              double(result.machine.memory_bytes) / 1e9)},
      {"backend", fmt::format("{}: {}", result.backend.name, result.backend.detail)},
      {"prefill", fmt::format("{} of {} tokens", spread_text(result.prefill_tokens_per_s), result.prompt_tokens)},
      {"decode", fmt::format("{} of {} tokens", spread_text(result.decode_tokens_per_s), result.new_tokens)},
      {"ceiling",
       fmt::format("{:.2f} GB/s read; decoding reads {:.2f} MB per token, {:.1f} % of it", result.ceiling.gb_per_s,
                   double(result.bytes_per_token) / 1e6, 100 * result.share_of_ceiling)}};
  rows.push_back({"layers alone", fmt::format("{}, {:.1f} % of the ceiling", spread_text(result.layers_per_s),
                                              100 * result.layers_share_of_ceiling)});
  for (const Watched& level : result.capture) {
    const std::string speed = spread_text(level.tokens_per_s);
    rows.push_back({"capture " + level.level, level.level == "off" ? speed : speed + ", " + cost_text(level.cost)});
  }
  if (result.edited) rows.push_back({"edited", spread_text(result.edited->tokens_per_s) + ", " + cost_text(result.edited->cost)});
  out.table(rows);
  if (result.noisy)
    out.warn(fmt::format(
        "other programs used {:.0f} % of the machine meanwhile; no claim should be made from these figures.",
        100 * result.other_load));
}

Result<Recipe> edited_recipe(const std::vector<EditCommand>& edits, const ModelPlan& plan) {
  for (const EditCommand& edit : edits)
    if (edit.at_token.value_or(0) > 0)
      return fail(ErrorCode::kUsage, "an edit begins after the first token; the bench decodes under all of them or none.", "--edits", "Leave out at_token.");
  Recipe recipe = *recipe_spans(edits, plan).front().recipe;
  if (!recipe.path.native())
    return fail(ErrorCode::kUsage, "skips or repeats layers, which begins with the prompt; the bench edits after it.", "--edits", "Leave out the layer path.");
  return recipe;
}

Result<int> run_bench(Cli& cli, const BenchArguments& arguments) {
  SY_CHECK(arguments.recording.check(cli.output.options.force));
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(arguments.model));
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  const int64_t capacity = int64_t{arguments.options.prompt_tokens} + arguments.options.new_tokens + 1;
  SY_TRY(const std::vector<EditCommand> edits, arguments.edits.read(checkpoint.plan));
  SY_TRY(const auto backend, arguments.backend.open(checkpoint, task, capacity, edits));
  BenchOptions options = arguments.options;
  if (arguments.edits.given()) {
    SY_TRY(options.edited, edited_recipe(edits, checkpoint.plan));
  }
  options.threads = arguments.backend.threads;
  if (arguments.recording.wanted()) {
    constexpr int kChunkRows = 1024;  // generation (formats.md, section 6)
    SY_TRY(options.sink, arguments.recording.create(checkpoint, {}, {{"command", "bench"}}, cli.output.options.force,
                                                    kChunkRows, task));
  }
  SY_TRY(const BenchResult result, bench(checkpoint, *backend, options, &task));
  if (cli.output.json())
    cli.output.json(result_json(result));
  else
    show(cli.output, result);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "bench", "Speed, and its share of what the machine can read.",
                              "  switchyard bench demo\n"
                              "  switchyard bench demo --backend reference --new-tokens 32 --json\n"
                              "  switchyard bench demo --edits mine.json   what an edit or a plugin's scheme costs");
  const auto arguments = std::make_shared<BenchArguments>();
  command->add_option("MODEL", arguments->model, "A folder, org/name of the HF cache, or demo")->required();
  command->add_option("--prompt-tokens", arguments->options.prompt_tokens, "Tokens of the prompt (128)")
      ->check(whole_number(1, 1 << 24))
      ->type_name("N");
  command->add_option("--new-tokens", arguments->options.new_tokens, "Tokens decoded per round (128)")
      ->check(whole_number(1, 1 << 24))
      ->type_name("N");
  command->add_option("--repeat", arguments->options.repeat, "Rounds (5)")
      ->check(whole_number(1, 10000))
      ->type_name("N");
  arguments->backend.add_options(*command);
  arguments->recording.add_options(*command);
  arguments->edits.add_options(*command);
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return run_bench(cli, *arguments); }; });
}

}  // namespace switchyard

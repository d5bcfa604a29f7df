// switchyard calibrate path-search, path-route, oracle and esft: which layers and which experts a text needs.
#include <algorithm>
#include <array>
#include <atomic>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "engine/analysis/analysis.h"
#include "engine/analysis/compare.h"
#include "engine/analysis/options.h"
#include "engine/base/atomic_file.h"
#include "engine/runtime/expert_oracle.h"
#include "engine/runtime/path_planner.h"
#include "engine/runtime/path_search.h"
#include "engine/trace/walk.h"

namespace switchyard {
namespace {

Overwrite overwrite(const Cli& cli) {
  return cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse;
}

// The start edits with this path instead of any of theirs.
std::string script_of(const EditedText& text, const LayerPath& path) {
  std::vector<EditCommand> script;
  for (const EditCommand& command : text.edits)
    if (!std::holds_alternative<LayerPath>(command.edit)) script.push_back(command);
  script.push_back({path, std::nullopt});
  return to_json_script(script) + "\n";
}

struct PathSearchArguments : EditedTextInput {
  PathSearchOptions search;
  std::string grade = "ce", out;
  int target_tokens = 0;
};

// Cross-entropy and exactness of the last `targets` tokens under a path.
Result<PathScore> score_path(Backend& backend, const EditedText& text, const std::vector<uint8_t>& passes, size_t targets,
                             const Task& task) {
  const ModelPlan& plan = text.checkpoint.plan;
  auto recipe = std::make_shared<Recipe>(text.recipe);
  recipe->path = {};
  apply(LayerPath{.passes = passes}, plan, *recipe);
  ForcedPass pass(backend, plan, {{0, std::move(recipe), {}}}, int(text.ids.size()));
  PathScore score{.ce = 0, .exact = true};
  const size_t vocab = size_t(plan.vocab), first = text.ids.size() - targets;
  std::vector<RoutingFrame> none;
  size_t at = 0;
  SY_CHECK(in_chunks(text.ids, plan, [&](std::span<const TokenId> tokens, std::span<float> logits) -> Result<void> {
    SY_CHECK(pass.forward(tokens, logits, CaptureLevel::kOff, none, &task));
    for (size_t t = 0; t < tokens.size(); ++t) {
      const size_t next = at + t + 1;
      if (next < first || next >= text.ids.size()) continue;
      const auto row = logits.subspan(t * vocab, vocab);
      score.ce += negative_log_likelihood(row, text.ids[next]);
      score.exact &= std::max_element(row.begin(), row.end()) - row.begin() == text.ids[next];
    }
    at += tokens.size();
    return {};
  }));
  score.ce /= double(targets);
  return score;
}

Document trial_json(const PathTrial& trial) {
  return {{"simulation", trial.simulation}, {"layers", path_of(trial.passes, int(trial.passes.size()))},
          {"length", trial.length},         {"ce", trial.score.ce},
          {"exact", trial.score.exact},     {"success", trial.success}};
}

Result<int> path_search(Cli& cli, const PathSearchArguments& arguments) {
  SY_TRY(const EditedText text, arguments.read(2));
  const ModelPlan& plan = text.checkpoint.plan;
  const size_t targets = arguments.target_tokens > 0 ? size_t(arguments.target_tokens) : text.ids.size() - 1;
  if (targets >= text.ids.size())
    return fail(
        ErrorCode::kUsage,
        fmt::format("the text has {} tokens; at most {} can be the target.", text.ids.size(), text.ids.size() - 1),
        "--target-tokens");
  PathSearchOptions options = arguments.search;
  options.grade_exact = arguments.grade == "exact";
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const std::vector<EditCommand> longest{
      {LayerPath{.passes = std::vector<uint8_t>(plan.layers.size(), 2)}, std::nullopt}};  // as long as a path gets
  SY_TRY(const auto backend, arguments.backend.open(text.checkpoint, task, int64_t(text.ids.size()), longest));
  PathSearchResult found;
  {
    const Progress progress(cli.output, cli.progress(), [&task] {
      return ProgressState{task.step(), task.fraction()};
    });
    SY_TRY(found,
           search_paths(
               int(plan.layers.size()), options,
               [&](const std::vector<uint8_t>& passes) { return score_path(*backend, text, passes, targets, task); },
               &task));
  }
  const PathTrial &own = found.trials.front(), &best = found.trials[found.best];
  LayerPath path;
  {
    Recipe normal;
    apply(LayerPath{.passes = best.passes}, plan, normal);
    path = normal.path;
  }
  if (!arguments.out.empty()) SY_CHECK(write_file(arguments.out, script_of(text, path), overwrite(cli)));
  if (cli.output.json()) {
    Document trials = Document::array();
    for (const PathTrial& trial : found.trials) trials.push_back(trial_json(trial));
    cli.output.json({{"schema", kSchema},
                     {"target_tokens", targets},
                     {"grade", arguments.grade},
                     {"seed", options.seed},
                     {"simulations", options.simulations},
                     {"own", trial_json(own)},
                     {"best", trial_json(best)},
                     {"trials", trials},
                     {"file", arguments.out.empty() ? Document() : Document(arguments.out)}});
    return 0;
  }
  const auto line = [](const char* what, const PathTrial& trial) -> std::vector<std::string> {
    return {what, fmt::format("{} layers", trial.length), fmt::format("{:.6f} nats", trial.score.ce),
            trial.score.exact ? "exact" : "not exact", describe(LayerPath{.passes = trial.passes})};
  };
  cli.output.table({line("the model's own", own), line("best found", best)});
  cli.output.data(fmt::format(
      "{} paths tried, {} of them as good by {}\n", found.trials.size(),
      std::count_if(found.trials.begin(), found.trials.end(), [](const PathTrial& trial) { return trial.success; }),
      options.grade_exact ? "exactness" : "cross-entropy"));
  return 0;
}

struct PathRouteArguments : EditedTextInput {
  std::string routers, out;
  double budget = -0.5;
};

Result<int> path_route(Cli& cli, const PathRouteArguments& arguments) {
  SY_TRY(EditedText text, arguments.read(1));
  const ModelPlan& plan = text.checkpoint.plan;
  LayerPath asking{.passes = {},
                   .chooser = {.file = arguments.routers, .budget = arguments.budget, .routers = nullptr}};
  SY_TRY(asking.chooser.routers, read_path_routers(arguments.routers));
  SY_CHECK(validate(Edit(asking), plan));
  text.recipe.path = asking;
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, arguments.open(text, task));
  const auto cache = backend->new_cache(int(text.ids.size()));
  SY_TRY(const std::vector<LayerDecision> decisions,
         decide_path(*backend, plan, text.recipe, *cache, text.ids, 0, &task));
  Recipe normal;
  apply(LayerPath{.passes = passes_of(decisions)}, plan, normal);
  if (!arguments.out.empty()) SY_CHECK(write_file(arguments.out, script_of(text, normal.path), overwrite(cli)));
  const std::vector<int> path = path_of(passes_of(decisions), int(plan.layers.size()));
  if (cli.output.json()) {
    Document layers = Document::array();
    for (size_t i = 0; i < decisions.size(); ++i)
      layers.push_back({{"layer", i},
                        {"routed", decisions[i].routed},
                        {"probabilities", decisions[i].probabilities},
                        {"mixed", decisions[i].mixed},
                        {"passes", decisions[i].passes}});
    cli.output.json({{"schema", kSchema},
                     {"tokens", text.ids.size()},
                     {"budget", arguments.budget},
                     {"path", path},
                     {"layers", layers},
                     {"file", arguments.out.empty() ? Document() : Document(arguments.out)}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "skip", "run", "repeat", "passes"}};
  for (size_t i = 0; i < decisions.size(); ++i) {
    const PathProbabilities& p = decisions[i].mixed;
    rows.push_back({fmt::format("{}", i), fmt::format("{:.3f}", p[0]), fmt::format("{:.3f}", p[1]),
                    fmt::format("{:.3f}", p[2]), fmt::format("{}", decisions[i].passes)});
  }
  cli.output.table(rows);
  return 0;
}

struct OracleArguments : EditedTextInput {
  OracleOptions oracle;
  int tokens = 0;
  std::string csv;
};

std::string pattern_text(const UsePattern& pattern) {
  std::string text;
  for (const ExpertUse use : pattern) text += use == ExpertUse::kSkip ? '-' : use == ExpertUse::kOne ? '1' : 'k';
  return text;
}

Result<int> oracle(Cli& cli, const OracleArguments& arguments) {
  SY_TRY(const EditedText text, arguments.read(2));
  const ModelPlan& plan = text.checkpoint.plan;
  const size_t count = std::min(text.ids.size() - 1, arguments.tokens > 0 ? size_t(arguments.tokens) : text.ids.size());
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, arguments.open(text, task));
  auto made = ExpertOracle::create(*backend, plan, text.recipe, int(text.ids.size()), arguments.oracle);
  if (!made) return fail(made.error().code, made.error().what, text.checkpoint.name, made.error().hint);
  std::vector<OracleToken> tokens;
  std::atomic<size_t> done{0};
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      return ProgressState{.step = "oracle", .fraction = double(done) / double(count), .tokens = done};
    });
    for (size_t t = 0; t < count; ++t, ++done) {
      SY_TRY(OracleToken one, made->next(text.ids[t], text.ids[t + 1], &task));
      tokens.push_back(std::move(one));
    }
  }
  const auto mean = [&](const auto& of) {
    double sum = 0;
    for (const OracleToken& token : tokens) sum += of(token);
    return sum / double(tokens.size());
  };
  std::vector<double> curve;
  for (int budget = 0; budget <= made->most(); ++budget)
    curve.push_back(mean([&](const OracleToken& token) { return token.best[size_t(budget)]; }));
  const double all = mean([](const OracleToken&token) { return token.all; }),
               one = mean([](const OracleToken&token) { return token.one; }),
               experts = mean([](const OracleToken&token) { return double(token.experts); });
  if (!arguments.csv.empty()) {
    std::string csv = "token,token_id,target_id,ce_all,ce_one,ce_best,difficulty,experts_of_best,pattern\n";
    for (size_t t = 0; t < tokens.size(); ++t)
      csv += fmt::format("{},{},{},{},{},{},{},{},{}\n", t, text.ids[t], text.ids[t + 1], tokens[t].all, tokens[t].one,
                         tokens[t].best.back(), tokens[t].difficulty(), tokens[t].experts,
                         pattern_text(tokens[t].pattern));
    SY_CHECK(write_file(arguments.csv, csv, overwrite(cli)));
  }
  if (cli.output.json()) {
    Document rows = Document::array();
    for (size_t t = 0; t < tokens.size(); ++t)
      rows.push_back({{"token", t},
                      {"token_id", text.ids[t]},
                      {"target_id", text.ids[t + 1]},
                      {"ce_all", tokens[t].all},
                      {"ce_one", tokens[t].one},
                      {"best", tokens[t].best},
                      {"difficulty", tokens[t].difficulty()},
                      {"experts", tokens[t].experts},
                      {"pattern", pattern_text(tokens[t].pattern)},
                      {"tried", tokens[t].tried}});
    cli.output.json({{"schema", kSchema},
                     {"layers", made->layers()},
                     {"exhaustive", made->exhaustive()},
                     {"most_experts", made->most()},
                     {"ce_all", all},
                     {"ce_one", one},
                     {"curve", curve},
                     {"mean_experts_of_best", experts},
                     {"tokens", rows}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"experts at most", "loss", "change"}};
  for (size_t budget = 0; budget < curve.size(); ++budget)
    if (budget == 0 || curve[budget] != curve[budget - 1])
      rows.push_back({fmt::format("{}", budget), fmt::format("{:.6f}", curve[budget]),
                      fmt::format("{:+.6f}", curve[budget] - all)});
  cli.output.table(rows);
  cli.output.data(
      fmt::format("{} tokens, {} patterns each by {}; all experts: {:.6f} nats, one per layer: {:.6f}; the best "
                  "patterns run {:.1f} of {} experts\n",
                  tokens.size(), tokens.front().tried, made->exhaustive() ? "trying every one" : "beam search", all,
                  one, experts, made->most()));
  return 0;
}

struct EsftArguments {
  std::string trace, score = "token", out, keep_only;
  double threshold = 0.2;
  int decimals = 4;
};

// Of `analyze TRACE esft`: its object.
Result<Document> esft_sets(const EsftArguments& arguments, std::unique_ptr<TraceReader> trace, Task& task) {
  AnalysisOptions options;
  options.threshold = arguments.threshold, options.score = arguments.score, options.decimals = arguments.decimals;
  std::vector<std::unique_ptr<TraceReader>> traces;
  traces.push_back(std::move(trace));
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(traces)));
  const AnalysisInfo* info = find_analysis("esft");
  auto made = make_analysis(*info, walk.shape(), options);
  if (!made) return fail(made.error().code, made.error().what, arguments.trace, made.error().hint);
  const std::array running{std::move(*made)};
  walk.carry(fields_of({&info, 1}));
  SY_CHECK(run_analyses(walk, running, 0, &task));
  return running[0]->result();
}

Result<int> esft(Cli& cli, const EsftArguments& arguments) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(auto trace, TraceReader::open(arguments.trace, &task));
  const TraceInfo info = trace->info();
  if (info.tokens == 0) return fail(ErrorCode::kUsage, "holds no token.", arguments.trace);
  for (int row = 0; row + 1 < info.layers; ++row)
    if (info.moe_layers[size_t(row)] == info.moe_layers[size_t(row) + 1])
      return fail(ErrorCode::kUsage,
                  fmt::format("layer {} has two rows; a set is of one router.", info.moe_layers[size_t(row)]),
                  arguments.trace, "switchyard analyze TRACE esft shows the sets of all rows.");
  Document found;
  {
    const Progress progress(cli.output, cli.progress(), [&task] {
      return ProgressState{task.step(), task.fraction()};
    });
    SY_TRY(found, esft_sets(arguments, std::move(trace), task));
  }

  Document experts = Document::object();
  std::vector<EditCommand> keep;
  std::vector<std::vector<std::string>> table = {{"layer", "experts", "ids"}};
  for (const Document& one : found["layers"]) {
    const int layer = one["layer"];
    const auto set = one["experts"].get<std::vector<ExpertId>>();
    experts[std::to_string(layer)] = set;
    table.push_back({std::to_string(layer), fmt::format("{} of {}", set.size(), info.experts),
                     fmt::format("{}", fmt::join(set, ", "))});
    if (set.empty() && !arguments.keep_only.empty())
      return fail(ErrorCode::kUsage, fmt::format("no expert of layer {} would stay.", layer), "--keep-only",
                  "Give a larger --threshold.");
    Mute mute{{{layer}}, {}};
    for (int id = 0; id < info.experts; ++id)
      if (std::find(set.begin(), set.end(), ExpertId(id)) == set.end()) mute.experts.push_back(ExpertId(id));
    if (!mute.experts.empty()) keep.push_back({std::move(mute), std::nullopt});
  }
  // The expert_cfg file of that repository.
  const Document config = {{"experts", std::move(experts)}, {"shared_experts", false}, {"non_expert_modules", false}};
  if (!arguments.out.empty()) SY_CHECK(write_file(arguments.out, config.dump() + "\n", overwrite(cli)));
  if (!arguments.keep_only.empty())
    SY_CHECK(write_file(arguments.keep_only, to_json_script(keep) + "\n", overwrite(cli)));
  if (!cli.output.json()) {
    cli.output.table(table);
    return 0;
  }
  Document document = {{"schema", kSchema}, {"trace", info.path.string()}, {"tokens", info.tokens}};
  document.update(found);
  cli.output.json(document);
  return 0;
}

void add_path_search(CLI::App& noun, Cli& cli) {
  auto* command = add_command(
      noun, "path-search", "A shorter (or longer) path through the layers that serves a text as well, by tree search.",
      "  switchyard calibrate path-search demo --text-file assets/prompts/python.txt --out path.json\n"
      "  switchyard calibrate path-search demo --text \"2 + 3 = 5\" --target-tokens 1 --grade exact --simulations 200 "
      "--json");
  const auto arguments = std::make_shared<PathSearchArguments>();
  arguments->add_options(*command);
  command
      ->add_option("--target-tokens", arguments->target_tokens,
                   "The last so many tokens are graded; 0: all but the first")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--grade", arguments->grade,
                   "ce: not above the model's own cross-entropy; exact: every target token is the most likely one")
      ->check(CLI::IsMember({"ce", "exact"}))
      ->capture_default_str()
      ->type_name("RULE");
  command->add_option("--slack", arguments->search.slack, "Nats by which the cross-entropy may rise")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command->add_option("--simulations", arguments->search.simulations, "Paths tried at most")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--seed", arguments->search.seed, "Of the search")->capture_default_str();
  command->add_option("--out", arguments->out, "Edit script to write: the best path after the start edits")
      ->type_name("FILE");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return path_search(cli, *arguments); }; });
}

void add_path_route(CLI::App& noun, Cli& cli) {
  auto* command =
      add_command(noun, "path-route", "The path that layer routers (Dr.LLM) choose for a prompt, under a budget.",
                  "  switchyard calibrate path-route demo --routers layer_routers.safetensors --text-file "
                  "assets/prompts/python.txt\n"
                  "  switchyard calibrate path-route demo --routers routers.safetensors --budget -0.7 --text \"The "
                  "router\" --out path.json");
  const auto arguments = std::make_shared<PathRouteArguments>();
  arguments->add_options(*command);
  command
      ->add_option("--routers", arguments->routers,
                   "A safetensors file: layers.{l}.drllm.l1.weight, .l1.bias, .l2.weight, .l2.bias")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--budget", arguments->budget,
                   "-1: skip all it can; -0.5: the routers alone; 0.5: run all; 1: repeat all")
      ->check(CLI::Range(-1.0, 1.0))
      ->capture_default_str();
  command->add_option("--out", arguments->out, "Edit script to write: the path after the start edits")
      ->type_name("FILE");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return path_route(cli, *arguments); }; });
}

void add_oracle(CLI::App& noun, Cli& cli) {
  auto* command = add_command(
      noun, "oracle",
      "Where experts pay: for each token the best pattern of no, one or all experts per layer, under every budget.",
      "  switchyard calibrate oracle demo --text-file assets/prompts/python.txt --tokens 16\n"
      "  switchyard calibrate oracle demo --text-file notes.txt --exhaustive-layers 0 --beam 4 --csv oracle.csv "
      "--json");
  const auto arguments = std::make_shared<OracleArguments>();
  arguments->add_options(*command);
  command->add_option("--tokens", arguments->tokens, "Only the first so many tokens; 0: all")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--exhaustive-layers", arguments->oracle.exhaustive_layers,
                   "Tries all 3^n patterns up to so many layers with experts")
      ->check(CLI::Range(0, 12))
      ->capture_default_str();
  command->add_option("--beam", arguments->oracle.beam, "Beyond that: patterns kept at each step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--csv", arguments->csv, "A line for each token")->type_name("FILE");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return oracle(cli, *arguments); }; });
}

void add_esft(CLI::App& noun, Cli& cli) {
  auto* command = add_command(
      noun, "esft", "The experts that a recorded task needs: the fewest whose scores reach a share, per layer.",
      "  switchyard calibrate esft task.moetrace.h5 --out experts.json\n"
      "  switchyard calibrate esft task.moetrace.h5 --score gate --threshold 0.1 --keep-only keep.json --json");
  const auto arguments = std::make_shared<EsftArguments>();
  command->add_option("TRACE", arguments->trace, "A *.moetrace.h5 file")->required();
  command->add_option("--score", arguments->score, "token: share of the slots; gate: mean routing weight")
      ->check(CLI::IsMember({"token", "gate"}))
      ->capture_default_str()
      ->type_name("NAME");
  command->add_option("--threshold", arguments->threshold, "Experts are taken until their scores add up to this")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--decimals", arguments->decimals, "Scores are rounded first, as the published scripts do")
      ->check(CLI::Range(0, 15))
      ->capture_default_str();
  command->add_option("--out", arguments->out, "The sets as the expert_cfg file of ESFT")->type_name("FILE");
  command->add_option("--keep-only", arguments->keep_only, "Edit script to write: all other experts are muted")
      ->type_name("FILE");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return esft(cli, *arguments); }; });
}

}  // namespace

void add_calibrate_paths(CLI::App& noun, Cli& cli) {
  add_path_search(noun, cli);
  add_path_route(noun, cli);
  add_oracle(noun, cli);
  add_esft(noun, cli);
}

}  // namespace switchyard

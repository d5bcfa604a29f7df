// switchyard compare: recipes beside the unedited model on one text, in shadow or as twin runs.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "engine/analysis/compare.h"
#include "engine/analysis/shadow.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

struct CompareOptions {
  std::string model, mode = "shadow";
  std::vector<std::string> recipes;
  SequenceInput input;
  BackendChoice backend;
};

// One recipe and what it changed.
struct Compared {
  std::string name;
  std::vector<RecipeSpan> spans;
  GateShift shift;
  EditEffect effect;               // twin only
  std::optional<ForcedPass> pass;  // twin only

  const Recipe& recipe_at(uint64_t token) const {
    size_t at = 0;
    while (at + 1 < spans.size() && spans[at + 1].first_token <= token) ++at;
    return *spans[at].recipe;
  }
};

// The unedited model and every recipe over the same tokens, chunk by chunk.
class Comparer {
 public:
  Comparer(const Checkpoint& checkpoint, Backend& backend, std::vector<RouterTensors> tensors,
           std::vector<Compared>& recipes, int capacity, bool twin, const Task& task)
      : plan_(checkpoint.plan),
        router_(plan_, std::move(tensors)),
        base_(backend, plan_, recipe_spans({}, plan_), capacity),
        recipes_(recipes),
        twin_(twin),
        task_(task) {
    for (Compared& one : recipes_) {
      one.shift = GateShift(plan_);
      if (twin_) one.pass.emplace(backend, plan_, one.spans, capacity);
    }
  }

  Result<void> walk(std::span<const TokenId> ids) {
    size_t from = 0;
    for (Compared& one : recipes_)
      if (one.pass) one.pass->begin(0, ids);
    return in_chunks(ids, plan_, [&](std::span<const TokenId> tokens, std::span<float> logits) -> Result<void> {
      SY_CHECK(base_.forward(tokens, twin_ ? logits : std::span<float>{}, CaptureLevel::kLogits, base_frames_, &task_));
      for (Compared& one : recipes_) {
        if (twin_) {
          SY_CHECK(run_twin(one, ids, from, tokens, logits));
        } else {
          for (size_t t = 0; t < tokens.size(); ++t) compare(one, base_frames_[t], base_frames_[t], from + t);
        }
      }
      from += tokens.size();
      tokens_done = from;
      return {};
    });
  }

  std::atomic<uint64_t> tokens_done{0};

 private:
  Result<void> run_twin(Compared& one, std::span<const TokenId> ids, size_t from, std::span<const TokenId> tokens,
                        std::span<const float> base_logits) {
    edited_logits_.resize(base_logits.size());
    SY_CHECK(one.pass->forward(tokens, edited_logits_, CaptureLevel::kLogits, frames_, &task_));
    const auto vocab = static_cast<size_t>(plan_.vocab);
    for (size_t t = 0; t < tokens.size(); ++t) {
      compare(one, base_frames_[t], frames_[t], from + t);
      if (from + t + 1 == ids.size()) continue;  // the last position predicts nothing known
      one.effect.add(effect_at(base_logits.subspan(t * vocab, vocab),
                               std::span<const float>(edited_logits_).subspan(t * vocab, vocab), ids[from + t + 1]));
    }
    return {};
  }

  void compare(Compared& one, const RoutingFrame& base, const RoutingFrame& other, uint64_t token) {
    const Recipe& recipe = one.recipe_at(token);
    for (int row = 0; row < one.shift.rows(); ++row) {
      decide(row, nullptr, base, true, base_decision_);
      if (other.passed(row)) {
        decide(row, recipe.layer(row), other, twin_, decision_);
      } else {  // its layer is skipped: no expert runs
        decision_ = base_decision_;
        decision_.select({}, {}, {});
      }
      one.shift.feed(row, base_decision_, decision_);
    }
  }

  // recorded: the frame was routed under this recipe, so what it says of the selection holds (capacity included).
  void decide(int row, const LayerRecipe* recipe, const RoutingFrame& frame, bool recorded, GateDecision& out) {
    router_.decide(row, recipe, frame, out);
    if (recorded) out.select(frame, row);
  }

  const ModelPlan& plan_;
  ShadowRouter router_;
  ForcedPass base_;
  std::vector<Compared>& recipes_;
  const bool twin_;
  const Task& task_;
  std::vector<RoutingFrame> base_frames_, frames_;
  std::vector<float> edited_logits_;
  GateDecision base_decision_, decision_;
};

// The file's name without its endings where that tells the files apart, else the path as given.
std::vector<std::string> names_of(const std::vector<std::string>& files) {
  const auto stem = [](const std::string& file) {
    std::string name = std::filesystem::path(file).filename().string();
    for (const std::string_view ending : {".json", ".edits"})
      if (name.size() > ending.size() && name.ends_with(ending)) name.resize(name.size() - ending.size());
    return name;
  };
  std::vector<std::string> names;
  for (const std::string& file : files) {
    const auto same =
        std::count_if(files.begin(), files.end(), [&](const auto& one) { return stem(one) == stem(file); });
    names.push_back(same > 1 ? file : stem(file));
  }
  return names;
}

Document finite(double value) {
  return std::isfinite(value) ? Document(value) : Document();
}

Document layer_json(const ModelPlan& plan, const GateShift& shift, int row) {
  const GateDifference mean = shift.mean(row);
  return {{"layer", plan.moe_layers[size_t(row)]}, {"router", plan.row_name(row)},   {"jaccard", mean.jaccard},
          {"weight_l1", mean.weight_l1},           {"kl", finite(mean.kl)},          {"js", mean.js},
          {"extra_experts", mean.extra_experts},   {"extra_flops", mean.extra_flops}};
}

Document first_diverging_layer(const ModelPlan& plan, const GateShift& shift) {
  const int row = shift.first_diverging_row();
  return row < 0 ? Document() : Document(plan.moe_layers[size_t(row)]);
}

Document document_of(const ModelPlan& plan, const std::vector<Compared>& recipes, const CompareOptions& options,
                     size_t tokens) {
  Document list = Document::array();
  for (const Compared& one : recipes) {
    Document entry = {{"name", one.name}};
    if (options.mode == "twin") {
      entry["kl"] = one.effect.mean(&PositionEffect::kl);
      entry["dnll"] = one.effect.dnll();
      entry["top1_flips"] = one.effect.top1_flip_rate();
      entry["first_diverging_layer"] = first_diverging_layer(plan, one.shift);
    }
    Document layers = Document::array();
    for (int row = 0; row < one.shift.rows(); ++row) layers.push_back(layer_json(plan, one.shift, row));
    entry["layers"] = std::move(layers);
    list.push_back(std::move(entry));
  }
  return {{"schema", kSchema}, {"mode", options.mode}, {"tokens", tokens}, {"recipes", std::move(list)}};
}

void show(Output& out, const ModelPlan& plan, const std::vector<Compared>& recipes, bool twin) {
  std::vector<std::vector<std::string>> rows = {
      {"recipe", "layer", "jaccard", "weight L1", "KL (nat)", "JS (nat)", "extra experts", "extra kFLOP"}};
  for (const Compared& one : recipes) {
    const auto line = [&](const std::string& layer, const GateDifference& mean) {
      rows.push_back({printable(one.name), layer, fmt::format("{:.4f}", mean.jaccard),
                      fmt::format("{:.4f}", mean.weight_l1), fmt::format("{:.5f}", mean.kl),
                      fmt::format("{:.5f}", mean.js), fmt::format("{:+.3f}", mean.extra_experts),
                      fmt::format("{:+.1f}", mean.extra_flops / 1e3)});
    };
    for (int row = 0; row < one.shift.rows(); ++row) line(plan.row_name(row), one.shift.mean(row));
    line("all layers", one.shift.mean());
  }
  out.table(rows);
  if (!twin) return;
  out.data("\n");
  rows = {{"recipe", "KL(base || edited)", "dNLL", "top-1 flips", "first diverging layer"}};
  for (const Compared& one : recipes) {
    const int first = one.shift.first_diverging_row();
    rows.push_back({printable(one.name), fmt::format("{:.6f}", one.effect.mean(&PositionEffect::kl)),
                    fmt::format("{:+.6f}", one.effect.dnll()),
                    fmt::format("{:.2f} %", 100 * one.effect.top1_flip_rate()),
                    first < 0 ? "none" : plan.row_name(first)});
  }
  out.table(rows);
}

Result<std::vector<Compared>> recipes_of(const CompareOptions& options, const ModelPlan& plan) {
  const std::vector<std::string> names = names_of(options.recipes);
  std::vector<Compared> recipes(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    SY_TRY(const std::vector<EditCommand> script, read_script(options.recipes[i], plan));
    if (plan.couples_tokens() && std::any_of(script.begin(), script.end(),
                                             [](const EditCommand& edit) { return edit.at_token.value_or(0) > 0; }))
      return fail(ErrorCode::kUsage, "an edit begins within a text, which this model runs in one piece.",
                  options.recipes[i], "Leave out at_token.");
    recipes[i].name = names[i];
    recipes[i].spans = recipe_spans(script, plan);
  }
  return recipes;
}

Result<int> compare(Cli& cli, const CompareOptions& options) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  const bool twin = options.mode == "twin";
  if (plan.encoder_layers > 0)
    return fail(ErrorCode::kUsage, "is an encoder-decoder; compare knows one text and no target for it.",
                checkpoint.name, "Use run with --edits and --dump-logits, once a recipe.");
  if (const std::string why = ShadowRouter::unavailable(plan); !twin && !why.empty())
    return fail(ErrorCode::kUsage, why + ".", "--mode shadow", "Use --mode twin.");
  SY_TRY(std::vector<Compared> recipes, recipes_of(options, plan));
  for (const Compared& one : recipes)
    for (const RecipeSpan& span : one.spans)
      if (const std::string why = ShadowRouter::unavailable(*span.recipe); !twin && !why.empty())
        return fail(ErrorCode::kUsage, why + ".", one.name + ", --mode shadow", "Use --mode twin.");
  SY_TRY(const std::vector<TokenId> ids, read_ids(options.input, checkpoint, options.mode == "twin" ? 2 : 1));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task));
  if (!backend->info().note.empty()) cli.output.info(backend->info().note);
  SY_TRY(std::vector<RouterTensors> tensors, read_router_tensors(checkpoint));
  Comparer comparer(checkpoint, *backend, std::move(tensors), recipes, static_cast<int>(ids.size()), twin, task);
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      const uint64_t done = comparer.tokens_done;
      return ProgressState{.step = "compare", .fraction = double(done) / double(ids.size()), .tokens = done};
    });
    SY_CHECK(comparer.walk(ids));
  }
  if (cli.output.json())
    cli.output.json(document_of(plan, recipes, options, ids.size()));
  else
    show(cli.output, plan, recipes, twin);
  return 0;
}

}  // namespace

void add_compare(CLI::App& app, Cli& cli) {
  auto* command =
      add_command(app, "compare", "What recipes change: beside the unedited model, on the same tokens.",
                  "  switchyard compare demo --recipes a.json,b.json --text-file assets/prompts/python.txt\n"
                  "  switchyard compare demo --recipes top2.json --text-file notes.txt --mode twin --json");
  const auto options = std::make_shared<CompareOptions>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  command->add_option("--recipes", options->recipes, "Edit scripts, separated by commas")
      ->required()
      ->delimiter(',')
      ->type_name("FILES");
  command
      ->add_option("--mode", options->mode,
                   "shadow: decisions on the unedited model's router logits, no expert runs; twin: both run")
      ->check(CLI::IsMember({"shadow", "twin"}))
      ->type_name("NAME");
  options->input.add_options(*command, "--text", "--text-file");
  options->backend.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return compare(cli, *options); }; });
}

}  // namespace switchyard

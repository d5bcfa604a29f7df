// switchyard inspect: what a checkpoint is and what it would take, from config and tensor headers only.
#include <algorithm>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "engine/backend/backend.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/quantised.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

constexpr int kDefaultContext = 4096;  // that of a session (SessionOptions::context)

// Names of specs/families.md, section 2.
std::string_view name(ScoreFn score) {
  switch (score) {
    case ScoreFn::kSoftmaxAll:
      return "softmax_all";
    case ScoreFn::kSoftmaxTopK:
      return "softmax_topk";
    case ScoreFn::kSigmoid:
      return "sigmoid";
    case ScoreFn::kSigmoidTopK:
      return "sigmoid_topk";
    case ScoreFn::kSparseMixer:
      return "sparsemixer";
    case ScoreFn::kNone:
      break;
  }
  return "none";
}

std::string_view name(Renorm renorm) {
  switch (renorm) {
    case Renorm::kNone:
      break;
    case Renorm::kSum:
      return "sum";
    case Renorm::kSumEps20:
      return "sum+1e-20";
    case Renorm::kSumEps6:
      return "sum+1e-6";
    case Renorm::kMaxSum:
      return "max(sum,m)";
    case Renorm::kPNorm:
      return "p-norm";
  }
  return "none";
}

Document router_json(const RouterSpec& router) {
  return {{"score", name(router.score)},
          {"k", router.experts_per_token},
          {"logit_bias", router.has_logit_bias},
          {"select_bias", router.has_select_bias},
          {"n_group", router.groups},
          {"topk_group", router.groups_kept},
          {"group_score", router.group_score == GroupScore::kMax ? "max" : "top2sum"},
          {"group_fill", router.group_fill == GroupFill::kZero ? "0" : "-inf"},
          {"renorm", name(router.renorm)},
          {"renorm_floor", shortest(router.renorm_floor)},
          {"jitter", shortest(router.jitter)},
          {"scale", shortest(router.scale)},
          {"apply", router.apply == ApplyTo::kOutput ? "output" : "input"}};
}

Document memory_json(const Checkpoint& checkpoint, int context, std::span<const uint8_t> passes) {
  Document memory = Document::object();
  for (const char* backend : {"cpu", "reference"}) {
    const MemoryEstimate need = estimate_memory(backend, checkpoint.plan, checkpoint, context, passes);
    memory[backend] = {
        {"weights", need.weights}, {"decoded", need.decoded}, {"kv", need.kv}, {"workspace", need.workspace}, {"total", need.total()}};
  }
  return memory;
}

Document tensors_json(const Checkpoint& checkpoint) {
  Document tensors = Document::array();
  for (const TensorInfo& tensor : checkpoint.tensors)
    tensors.push_back({{"name", tensor.name},
                       {"dtype", name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.end - tensor.begin},
                       {"shard", checkpoint.shards[tensor.shard]}});
  return tensors;
}

std::string count_text(int64_t count) {
  if (count < 1'000'000) return fmt::format("{}", count);
  if (count < 1'000'000'000) return fmt::format("{:.1f} M", double(count) / 1e6);
  return fmt::format("{:.2f} B", double(count) / 1e9);
}

// "6.5 B as GGUF Q4_K, 0.4 B as GGUF Q6_K", the largest share first.
std::string storage_list(const ModelPlan& plan) {
  std::string text;
  for (const StorageShare& share : storage_of(plan))
    text += fmt::format("{}{} as {}", text.empty() ? "" : ", ", count_text(share.parameters), share.storage);
  return text;
}

Document storage_json(const ModelPlan& plan) {
  Document list = Document::array();
  for (const StorageShare& share : storage_of(plan))
    list.push_back({{"storage", share.storage}, {"parameters", share.parameters}});
  return list;
}

// "0-7", "1-3, 5": layer numbers as ranges.
std::string ranges_text(std::vector<int> numbers) {
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());  // a layer may hold two routers
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    text += (text.empty() ? "" : ", ") +
            (end == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[end]));
    i = end + 1;
  }
  return text;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += fmt::format("{}{}", i ? ", " : "", shape[i]);
  return text + "]";
}

std::string router_text(const RouterSpec& router) {
  std::string text = fmt::format("{}, top {} of {}, weights renormalised: {}", name(router.score),
                                 router.experts_per_token, router.experts, name(router.renorm));
  if (router.groups > 1) text += fmt::format(", {} of {} groups", router.groups_kept, router.groups);
  if (router.scale != 1) text += fmt::format(", scale {}", router.scale);
  return text;
}

struct Tokens {
  std::string kind, problem;
};
Tokens inspect_tokenizer(const Checkpoint& checkpoint) {
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (tokenizer) return {std::string((*tokenizer)->kind()), ""};
  return {"", tokenizer.error().message()};
}

void show_text(Output& out, const Checkpoint& checkpoint, const Tokens& tokens, int context, std::span<const uint8_t> passes, bool tensors) {
  const ModelPlan& plan = checkpoint.plan;
  std::vector<std::vector<std::string>> rows = {
      {"model",
       printable(checkpoint.name) + (checkpoint.revision.empty() ? "" : " @ " + printable(checkpoint.revision))},
      {"family", printable(plan.family)},
      {"layers", fmt::format("{}, with experts: {}", plan.layers.size(), ranges_text(plan.moe_layers))},
      {"experts", fmt::format("{} per layer, {} per token", plan.max_experts(), plan.max_experts_per_token())}};
  if (plan.encoder_layers > 0)
    rows.push_back({"encoder", fmt::format("the first {} layers; the rest are the decoder", plan.encoder_layers)});
  if (const std::string note = coupling_note(plan); !note.empty()) rows.push_back({"note", note});
  if (!plan.moe_layers.empty()) rows.push_back({"router", router_text(plan.routed(0).router)});
  rows.push_back({"parameters", fmt::format("{}, {} active per token", count_text(plan.parameters()),
                                            count_text(plan.active_parameters()))});
  rows.push_back({"weights", fmt::format("{}: {}", bytes_text(checkpoint.weight_bytes()), storage_list(plan))});
  rows.push_back({"vocabulary", fmt::format("{}", plan.vocab)});
  rows.push_back({"context", fmt::format("{}", plan.context)});
  rows.push_back({"tokenizer", tokens.problem.empty() ? tokens.kind : "none: " + printable(tokens.problem, 400)});
  if (!passes.empty()) rows.push_back({"layer path", ranges_text(path_of({passes.begin(), passes.end()}, int(passes.size())))});
  for (const char* backend : {"cpu", "reference"})
    rows.push_back(
        {fmt::format("memory, {}", backend),
         fmt::format("{}, at {} tokens", memory_text(estimate_memory(backend, plan, checkpoint, context, passes)), context)});
  if (const std::string missing = missing_on_cpu(plan); !missing.empty())
    rows.push_back({"cpu backend", "lacks " + printable(missing)});
  out.table(rows);
  if (!tensors) return;
  out.data("\n");
  std::vector<std::vector<std::string>> lines;
  for (const TensorInfo& tensor : checkpoint.tensors)
    lines.push_back({printable(tensor.name, 1024), tensor.layout ? tensor.layout->label : std::string(name(tensor.dtype)), shape_text(tensor.shape),
                     fmt::format("{}", tensor.end - tensor.begin), printable(checkpoint.shards[tensor.shard])});
  out.table(lines);
}

Result<int> inspect(Cli& cli, const std::string& model, const EditsInput& edits, bool tensors) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(model));
  SY_TRY(const std::vector<EditCommand> script, edits.read(checkpoint.plan));
  const std::vector<uint8_t> passes = recipe_spans(script, checkpoint.plan).front().recipe->path.passes;
  const ModelPlan& plan = checkpoint.plan;
  const int context = std::min(plan.context, kDefaultContext);
  const Tokens tokens = inspect_tokenizer(checkpoint);
  if (!cli.output.json()) {
    show_text(cli.output, checkpoint, tokens, context, passes, tensors);
    return 0;
  }
  Document document = {{"schema", kSchema},
                       {"name", checkpoint.name},
                       {"revision", checkpoint.revision.empty() ? Document() : Document(checkpoint.revision)},
                       {"family", plan.family},
                       {"layers", plan.layers.size()},
                       {"moe_layers", plan.moe_layers},
                       {"experts", plan.max_experts()},
                       {"experts_per_token", plan.max_experts_per_token()},
                       {"shared_experts", 0},
                       {"router", plan.moe_layers.empty() ? Document() : router_json(plan.routed(0).router)},
                       {"parameters", plan.parameters()},
                       {"active_parameters", plan.active_parameters()},
                       {"weight_bytes", checkpoint.weight_bytes()},
                       {"dtype", name(plan.dtype)},
                       {"storage", storage_json(plan)},
                       {"hidden", plan.hidden},
                       {"vocab", plan.vocab},
                       {"context", plan.context},
                       {"tokenizer", tokens.problem.empty() ? Document(tokens.kind) : Document()},
                       {"memory_context", context},
                       {"memory", memory_json(checkpoint, context, passes)}};
  if (!passes.empty()) document["layer_path"] = path_of(passes, int(passes.size()));
  if (!tokens.problem.empty()) document["tokenizer_problem"] = tokens.problem;
  if (const std::string missing = missing_on_cpu(plan); !missing.empty()) document["missing_on_cpu"] = missing;
  if (tensors) document["tensors"] = tensors_json(checkpoint);
  cli.output.json(document);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "inspect", "What a checkpoint is and what it needs; reads headers only.",
                              "  switchyard inspect demo\n"
                              "  switchyard inspect ./OLMoE-1B-7B --json\n"
                              "  switchyard inspect demo --edits twice.json\n"
                              "  switchyard inspect allenai/OLMoE-1B-7B-0924 --tensors");
  const auto model = std::make_shared<std::string>();
  const auto tensors = std::make_shared<bool>(false);
  const auto edits = std::make_shared<EditsInput>();
  command->add_option("MODEL", *model, "A folder, org/name of the HF cache, or demo")->required();
  command->add_flag("--tensors", *tensors, "List every tensor as well");
  edits->add_options(*command);
  command->get_option("--edits")->description("Counts the keys and values of a layer path in this script too");
  command->callback(
      [&cli, model, edits, tensors] { cli.action = [&cli, model, edits, tensors] { return inspect(cli, *model, *edits, *tensors); }; });
}

}  // namespace switchyard

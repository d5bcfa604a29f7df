// switchyard calibrate prune: which experts of each layer can go by a criterion of specs/analyses.md A15, as an edit script.
#include <algorithm>
#include <atomic>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/forced.h"
#include "app/cli/texts_file.h"
#include "engine/analysis/naee.h"
#include "engine/analysis/pruning.h"
#include "engine/backend/expert_probe.h"
#include "engine/backend/router_inputs.h"
#include "engine/base/atomic_file.h"
#include "engine/routing/edit.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct PruneOptions {
  std::string model, texts, criterion = "reap", out;
  int keep = 0, most_tokens = 4096;
  uint64_t most_sets = 10'000;
  bool renormalise = true;
  BackendChoice backend;
};

struct Criterion {
  const char* name;
  uint8_t taps;
  double (*score)(const Saliency&);
};
constexpr Criterion kCriteria[] = {
    {"frequency", 0, [](const Saliency& s) { return double(s.frequency); }},
    {"seer_soft", 0, [](const Saliency& s) { return s.seer_soft; }},
    {"ean_sum", Taps::kOutNorm, [](const Saliency& s) { return s.ean_sum; }},
    {"ean_mean", Taps::kOutNorm, [](const Saliency& s) { return s.ean_mean(); }},
    {"weighted_ean", Taps::kOutNorm, [](const Saliency& s) { return s.weighted_ean; }},
    {"reap", Taps::kOutNorm, [](const Saliency& s) { return s.reap(); }},
    {"easy_ep", Taps::kOutNorm | Taps::kBlockCos, [](const Saliency& s) { return s.easy_ep; }},
};
constexpr const char* kNaee = "naee";

// What was chosen in one layer, and why.
struct LayerChoice {
  std::vector<ExpertId> dropped;
  Document why;
};

// The frames of a text as one slab.
struct FrameSlab {
  std::vector<ExpertId> ids;
  std::vector<float> weights, norms, cosines;
  std::vector<uint32_t> sequence, position;
  RoutingSlab slab;

  FrameSlab(const std::vector<RoutingFrame>& frames, int rows, int experts) {
    int k = 0;
    for (const RoutingFrame& frame : frames) k = std::max<int>(k, frame.header().slots);
    const size_t tokens = frames.size(), cells = size_t(rows) * tokens * size_t(k);
    ids.assign(cells, kNoExpert);
    weights.resize(cells), norms.resize(cells), cosines.resize(size_t(rows) * tokens);
    sequence.resize(tokens), position.resize(tokens);
    for (size_t t = 0; t < tokens; ++t)
      for (int row = 0; row < rows; ++row) {
        const auto used = frames[t].used_ids(row);
        const size_t at = (size_t(row) * tokens + t) * size_t(k);
        std::copy(used.begin(), used.end(), ids.begin() + ptrdiff_t(at));
        std::copy_n(frames[t].weights(row).begin(), used.size(), weights.begin() + ptrdiff_t(at));
        if (const auto own = frames[t].out_norms(row); !own.empty()) std::copy_n(own.begin(), used.size(), norms.begin() + ptrdiff_t(at));
        cosines[size_t(row) * tokens + t] = frames[t].block_cos(row);
      }
    slab.tokens = int(tokens), slab.rows = rows, slab.experts = experts, slab.k = k;
    slab.ids = ids, slab.weights = weights, slab.out_norm = norms, slab.block_cos = cosines, slab.sequence = sequence, slab.position = position;
  }
};

struct Work {
  const PruneOptions& options;
  const ModelPlan& plan;
  Backend& backend;
  const std::vector<TextSequence>& texts;
  Task& task;
  std::atomic<double>& done;

  int rows() const { return int(plan.rows.size()); }

  Result<std::vector<LayerChoice>> by_score(const Criterion& criterion) {
    ForcedPass pass(backend, plan, recipe_spans({}, plan), longest());
    pass.set_taps(criterion.taps);
    ExpertSaliency saliency(rows(), plan.max_experts(), options.renormalise);
    std::vector<RoutingFrame> frames;
    for (size_t i = 0; i < texts.size(); ++i) {
      pass.begin(uint32_t(i));
      SY_CHECK(pass.forward(texts[i].ids, {}, CaptureLevel::kWeights, frames, &task));
      const FrameSlab slab(frames, rows(), plan.max_experts());
      for (int row = 0; row < rows(); ++row) SY_CHECK(saliency.feed(slab.slab, row));
      done = double(i + 1) / double(texts.size());
    }
    std::vector<LayerChoice> out;
    for (int row = 0; row < rows(); ++row) {
      std::vector<double> scores;
      for (const Saliency& sums : saliency.row(row).first(size_t(plan.routed(row).router.experts))) scores.push_back(criterion.score(sums));
      out.push_back({pruned_set(scores, options.keep), {{"scores", scores}}});
    }
    return out;
  }

  Result<std::vector<LayerChoice>> by_naee() {
    auto* probe = dynamic_cast<ExpertProbe*>(&backend);
    if (!probe)
      return fail(ErrorCode::kUsage, "the " + backend.info().name + " backend does not run experts that were not chosen.", "--criterion naee", "Use --backend reference.");
    std::vector<RouterInputs> inputs;  // of each text
    std::vector<std::vector<RoutingFrame>> frames(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      RouterInputs& seen = inputs.emplace_back(plan.rows.size());
      ForcedPass pass(backend, plan, recipe_spans({}, plan), int(texts[i].ids.size()));
      pass.set_router_tap(&seen);
      pass.begin(uint32_t(i));
      SY_CHECK(pass.forward(texts[i].ids, {}, CaptureLevel::kLogits, frames[i], &task));
    }
    std::vector<LayerChoice> out;
    for (int row = 0; row < rows(); ++row) {
      const RouterSpec& router = plan.routed(row).router;
      NaeeSearch search(router, plan.hidden);
      for (size_t i = 0; i < texts.size(); ++i) {
        SY_TRY(const std::vector<float> outputs, probe->expert_outputs(row, inputs[i].row(row)));
        std::vector<float> logits;
        for (const RoutingFrame& frame : frames[i]) {
          const auto own = frame.logits(row).first(size_t(router.experts));
          logits.insert(logits.end(), own.begin(), own.end());
        }
        search.add_block(logits, outputs);
      }
      SY_TRY(NaeeChoice found, search.choose(options.keep, options.most_sets, &task));
      out.push_back({std::move(found.dropped), {{"loss", found.loss}, {"exhaustive", found.exhaustive}, {"tried", found.tried}}});
      done = double(row + 1) / double(rows());
    }
    return out;
  }

  int longest() const {
    size_t tokens = 1;
    for (const TextSequence& text : texts) tokens = std::max(tokens, text.ids.size());
    return int(tokens);
  }
};

// The first most_tokens tokens of them; whole texts but for the last.
Result<std::vector<TextSequence>> calibration_texts(Cli& cli, const PruneOptions& options, const Checkpoint& checkpoint) {
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  SY_TRY(std::vector<TextSequence> texts, read_texts(options.texts, tokenizer ? tokenizer->get() : nullptr, checkpoint.plan.vocab));
  std::erase_if(texts, [](const TextSequence& text) { return text.ids.empty(); });
  size_t tokens = 0, kept = 0;
  for (; kept < texts.size() && tokens < size_t(options.most_tokens); ++kept) {
    std::vector<TokenId>& ids = texts[kept].ids;
    if (ids.size() > size_t(checkpoint.plan.context))
      return fail(ErrorCode::kUsage, fmt::format("a text has {} tokens, the model's context is {}.", ids.size(), checkpoint.plan.context), options.texts);
    ids.resize(std::min(ids.size(), size_t(options.most_tokens) - tokens));
    tokens += ids.size();
  }
  if (kept < texts.size()) cli.output.info(fmt::format("The first {} tokens of the texts are used (--most-tokens).", tokens));
  texts.resize(kept);
  if (texts.empty()) return fail(ErrorCode::kUsage, "holds no text.", options.texts);
  return texts;
}

Result<int> prune(Cli& cli, PruneOptions options) {
  const bool naee = options.criterion == kNaee;
  if (naee && options.backend.name == "auto") options.backend.name = "reference";
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "is an encoder-decoder; calibrate knows one text a sequence.", checkpoint.name);
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    const RouterSpec& router = plan.routed(row).router;
    if (options.keep < router.experts_per_token || options.keep >= router.experts)
      return fail(ErrorCode::kUsage, fmt::format("{} of the {} experts of {} cannot stay.", options.keep, router.experts, plan.row_name(row)), "--keep",
                  fmt::format("Keep {} to {}: a token needs {}.", router.experts_per_token, router.experts - 1, router.experts_per_token));
  }
  SY_TRY(const std::vector<TextSequence> texts, calibration_texts(cli, options, checkpoint));
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  size_t tokens = 0;
  for (const TextSequence& text : texts) tokens += text.ids.size();
  std::atomic<double> done{0};
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(tokens)));
  Work work{options, plan, *backend, texts, task, done};
  Result<std::vector<LayerChoice>> chosen = std::vector<LayerChoice>();
  {
    const Progress progress(cli.output, cli.progress(), [&] { return ProgressState{.step = "prune", .fraction = done, .tokens = tokens}; });
    chosen = naee ? work.by_naee() : work.by_score(*std::ranges::find(kCriteria, options.criterion, &Criterion::name));
  }
  if (!chosen) return tl::unexpected<Error>(chosen.error());

  std::vector<EditCommand> script;
  Document layers = Document::array();
  std::vector<std::vector<std::string>> rows = {{"layer", "experts that go", naee ? "loss" : "largest score that goes"}};
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    const LayerChoice& layer = (*chosen)[size_t(row)];
    script.push_back({Mute{layer_of_row(plan, row), layer.dropped}, {}});
    SY_CHECK(validate(script.back().edit, plan));
    Document one = {{"layer", plan.moe_layers[size_t(row)]}, {"router", plan.row_name(row)}, {"dropped", layer.dropped}};
    one.update(layer.why);
    double largest = 0;
    for (const ExpertId id : layer.dropped)
      if (!naee) largest = std::max(largest, layer.why["scores"][id].get<double>());
    rows.push_back({plan.row_name(row), fmt::format("{}", fmt::join(layer.dropped, " ")),
                    naee ? fmt::format("{:.5g}{}", layer.why["loss"].get<double>(), layer.why["exhaustive"].get<bool>() ? ", the least of all sets" : "")
                         : fmt::format("{:.5g}", largest)});
    layers.push_back(std::move(one));
  }
  if (!options.out.empty()) {
    SY_CHECK(write_file(options.out, to_json_script(script) + "\n", cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
    cli.output.info(fmt::format("The mutes are in {}: score them with switchyard score --edits, take them away with switchyard export.", options.out));
  }
  if (cli.output.json()) {
    cli.output.json({{"schema", kSchema}, {"criterion", options.criterion}, {"keep", options.keep}, {"tokens", tokens}, {"renormalised", options.renormalise}, {"layers", layers}});
    return 0;
  }
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_calibrate_prune(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "prune", "Which experts of each layer can go by a pruning criterion; writes the mutes as an edit script.",
                              "  switchyard calibrate prune demo --texts eval.jsonl --keep 16 --out prune.json\n"
                              "  switchyard calibrate prune demo --texts eval.jsonl --keep 24 --criterion naee --most-tokens 256\n"
                              "  switchyard export demo --edits prune.json --out demo-pruned");
  const auto options = std::make_shared<PruneOptions>();
  std::vector<std::string> names;
  for (const Criterion& criterion : kCriteria) names.emplace_back(criterion.name);
  names.emplace_back(kNaee);
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  command->add_option("--texts", options->texts, "Texts, one JSON object a line: {\"text\": ...} or {\"token_ids\": [...]}")->required()->type_name("JSONL");
  command->add_option("--keep", options->keep, "Experts of each layer that stay")->required()->check(CLI::Range(1, 65534));
  command->add_option("--criterion", options->criterion, "reap, frequency, seer_soft, ean_sum, ean_mean, weighted_ean, easy_ep or naee")
      ->check(CLI::IsMember(names))->capture_default_str()->type_name("NAME");
  command->add_option("--most-tokens", options->most_tokens, "Of the texts, from their start")->check(CLI::Range(1, 1 << 30))->capture_default_str();
  command->add_option("--most-sets", options->most_sets, "naee: as many sets of experts are tried one by one; where there are more, experts go greedily")->check(CLI::Range(1, 1'000'000'000))->capture_default_str();
  command->add_flag("!--no-renormalise", options->renormalise, "Weights as applied, not over the token's sum (REAP before March 2026)");
  command->add_option("--out", options->out, "Edit script to write")->type_name("FILE");
  options->backend.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return prune(cli, *options); }; });
}

}  // namespace switchyard

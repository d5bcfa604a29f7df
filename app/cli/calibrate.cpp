// switchyard calibrate contrast, carve and sensitivity: what sets of texts route differently, which units of an expert a
// domain uses, and what an edit costs layer by layer.
#include <algorithm>
#include <atomic>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edited_text.h"
#include "app/cli/texts_file.h"
#include "engine/analysis/carving.h"
#include "engine/analysis/compare.h"
#include "engine/analysis/contrast.h"
#include "engine/base/atomic_file.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

Result<const Tokenizer*> borrowed(const Result<std::shared_ptr<const Tokenizer>>& tokenizer) {
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  return tokenizer ? tokenizer->get() : nullptr;
}

struct ContrastOptions {
  std::string model, a, b, steer;
  int top = 20, resamples = 1000, steer_experts = 1;
  double level = kSignificanceLevel;
  uint64_t seed = 0;
  BackendChoice backend;
  EditsInput edits;
};

// Experts that A uses more are lifted, those that B uses more are put down: at most `most` each per layer, significant ones only.
std::vector<EditCommand> steering(const std::vector<ExpertContrast>& found, const ModelPlan& plan, double level, int most) {
  std::vector<EditCommand> edits;
  for (int row = 0; row < int(plan.moe_layers.size()); ++row) {
    std::vector<int> on, off;
    for (const ExpertContrast& one : found) {
      if (one.row != row || one.q > level || one.rd == 0) continue;
      std::vector<int>& list = one.rd > 0 ? on : off;
      if (int(list.size()) < most) list.push_back(one.expert);
    }
    if (on.empty() && off.empty()) continue;
    SchemeChoice choice{"steer", {}};
    if (!on.empty()) choice.parameters["on"] = on;
    if (!off.empty()) choice.parameters["off"] = off;
    if (const auto scheme = make_scheme(choice)) edits.push_back({SetScheme{layer_of_row(plan, row), *scheme}, {}});
  }
  return edits;
}

Result<int> contrast(Cli& cli, const ContrastOptions& options) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "is an encoder-decoder; calibrate knows one text a sequence.", checkpoint.name);
  SY_TRY(const std::vector<EditCommand> edits, options.edits.read(plan));
  const auto tokenizer = Tokenizer::load(checkpoint);
  SY_TRY(const Tokenizer* encoder, borrowed(tokenizer));
  std::vector<TextSequence> sides[2];
  SY_TRY(sides[0], read_texts(options.a, encoder, plan.vocab));
  SY_TRY(sides[1], read_texts(options.b, encoder, plan.vocab));
  size_t longest = 1, total = 0, done_count = 0;
  for (const auto& side : sides) {
    if (side.empty()) return fail(ErrorCode::kUsage, "holds no text.", &side == sides ? options.a : options.b);
    for (const TextSequence& text : side) longest = std::max(longest, text.ids.size()), total += text.ids.size();
  }
  if (longest > size_t(plan.context)) return fail(ErrorCode::kUsage, fmt::format("a text has {} tokens, the model's context is {}.", longest, plan.context));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(longest), edits));
  ForcedPass pass(*backend, plan, recipe_spans(edits, plan), int(longest));
  ContrastProfile profile(int(plan.moe_layers.size()), plan.max_experts());
  std::atomic<uint64_t> tokens_done{0};
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      return ProgressState{.step = "contrast", .fraction = double(tokens_done) / double(std::max<size_t>(1, total)), .tokens = tokens_done};
    });
    std::vector<RoutingFrame> frames;
    for (const int side : {0, 1})
      for (const TextSequence& text : sides[side]) {
        if (text.ids.empty()) continue;
        pass.begin(uint32_t(done_count++), text.ids);
        SY_CHECK(pass.forward(text.ids, {}, CaptureLevel::kIds, frames, &task));
        profile.begin_text(side);
        for (const RoutingFrame& frame : frames) {
          profile.count_token();
          for (int row = 0; row < int(plan.moe_layers.size()); ++row) SY_CHECK(profile.feed(row, frame.used_ids(row)));
        }
        tokens_done += text.ids.size();
      }
  }
  const std::vector<ExpertContrast> found = profile.result(options.resamples, options.seed);
  if (!options.steer.empty()) {
    const auto script = steering(found, plan, options.level, options.steer_experts);
    SY_CHECK(write_file(options.steer, to_json_script(script) + "\n", cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
    cli.output.info(fmt::format("steering in {} layers written to {}", script.size(), options.steer));
  }
  const auto shown = std::span(found).first(std::min(found.size(), size_t(options.top)));
  if (cli.output.json()) {
    Document experts = Document::array();
    for (const ExpertContrast& one : shown)
      experts.push_back({{"layer", plan.moe_layers[one.row]}, {"expert", one.expert}, {"rate_a", one.rate_a}, {"rate_b", one.rate_b}, {"rd", one.rd},
                         {"z", one.z}, {"p", one.p}, {"q", one.q}, {"low", one.low}, {"high", one.high}});
    const auto significant = std::count_if(found.begin(), found.end(), [&](const auto& one) { return one.q <= options.level; });
    cli.output.json({{"schema", kSchema},
                     {"tokens_a", profile.tokens(0)}, {"tokens_b", profile.tokens(1)},
                     {"texts_a", profile.texts(0)}, {"texts_b", profile.texts(1)},
                     {"level", options.level}, {"significant", significant}, {"tested", found.size()},
                     {"experts", experts}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "expert", "rate A", "rate B", "difference", "95 % of texts", "z", "q"}};
  for (const ExpertContrast& one : shown)
    rows.push_back({plan.row_name(one.row), fmt::format("{}", one.expert), fmt::format("{:.3f}", one.rate_a), fmt::format("{:.3f}", one.rate_b),
                    fmt::format("{:+.3f}", one.rd), fmt::format("{:+.3f} to {:+.3f}", one.low, one.high), fmt::format("{:.2f}", one.z), fmt::format("{:.2g}", one.q)});
  cli.output.table(rows);
  return 0;
}

struct CarveOptions {
  std::string model, texts, out;
  int expert = 0;
  double keep = 0.5;
  BackendChoice backend;
};

// The activity of one expert in each row.
class ExpertTap final : public UnitTap {
 public:
  explicit ExpertTap(int expert) : expert_(expert) {}
  void take(int row, ExpertId expert, int, std::span<const float> units) override {
    if (expert == expert_) activity.add(row, units);
  }
  UnitActivity activity;

 private:
  const int expert_;
};

// Of every domain of the texts the expert in its place: the expert that is carved, less what the domain does not use.
std::vector<EditCommand> carving_script(const ModelPlan& plan, int expert, const std::vector<std::vector<UnitMask>>& masks) {
  std::vector<EditCommand> script;
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    if (masks[size_t(row)].empty()) continue;
    const LayerSet layer = layer_of_row(plan, row);
    const Carving carving = carve(masks[size_t(row)]);
    for (size_t domain = 0; domain < carving.experts.size(); ++domain) {
      const std::vector<ExpertId> place{ExpertId(domain)};
      std::vector<int> off;
      for (size_t unit = 0; unit < carving.residual.size(); ++unit)
        if (!carving.residual[unit] && !carving.experts[domain][unit]) off.push_back(int(unit));
      if (int(domain) != expert) script.push_back({Replace{layer, place, {{ExpertId(expert), 1.0f}}}, {}});
      script.push_back({NeuronMask{layer, place, std::move(off)}, {}});
    }
  }
  if (const auto gate = make_scheme({"pre_gate", {}})) script.push_back({SetScheme{{}, *gate}, {}});
  return script;
}

Result<int> carve_experts(Cli& cli, const CarveOptions& options) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "is an encoder-decoder; calibrate knows one text a sequence.", checkpoint.name);
  SY_TRY(const Scheme gate, make_scheme({"pre_gate", {{"expert", double(options.expert)}}}));
  const std::vector<EditCommand> all_to_one{{SetScheme{{}, gate}, {}}};
  SY_CHECK(validate(all_to_one[0].edit, plan));
  const auto tokenizer = Tokenizer::load(checkpoint);
  SY_TRY(const Tokenizer* encoder, borrowed(tokenizer));
  SY_TRY(const std::vector<TextSequence> texts, read_texts(options.texts, encoder, plan.vocab));
  std::vector<std::string> domains;
  size_t longest = 1, total = 0;
  for (const TextSequence& text : texts) {
    if (std::find(domains.begin(), domains.end(), text.domain) == domains.end()) domains.push_back(text.domain);
    longest = std::max(longest, text.ids.size()), total += text.ids.size();
  }
  int fewest = plan.max_experts();
  for (int row = 0; row < int(plan.rows.size()); ++row) fewest = std::min(fewest, plan.routed(row).router.experts);
  if (domains.size() < 2 || int(domains.size()) > fewest)
    return fail(ErrorCode::kUsage, fmt::format("holds texts of {} domains; needs 2 to {}, one for each expert.", domains.size(), fewest), options.texts,
                "Give each line a \"domain\".");
  if (longest > size_t(plan.context)) return fail(ErrorCode::kUsage, fmt::format("a text has {} tokens, the model's context is {}.", longest, plan.context));

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(longest)));
  std::vector<std::vector<UnitMask>> masks(plan.rows.size());  // [row][domain]
  std::vector<uint64_t> tokens;
  std::atomic<uint64_t> done{0};
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      return ProgressState{.step = "carve", .fraction = double(done) / double(std::max<size_t>(1, total)), .tokens = done};
    });
    std::vector<RoutingFrame> none;
    for (const std::string& domain : domains) {
      ExpertTap tap(options.expert);
      ForcedPass pass(*backend, plan, recipe_spans(all_to_one, plan), int(longest));
      pass.set_unit_tap(&tap);
      uint64_t count = 0;
      for (const TextSequence& text : texts) {
        if (text.domain != domain || text.ids.empty()) continue;
        pass.begin(0);
        SY_CHECK(pass.forward(text.ids, {}, CaptureLevel::kOff, none, &task));
        done += text.ids.size(), count += text.ids.size();
      }
      tokens.push_back(count);
      for (int row = 0; row < int(plan.rows.size()); ++row)
        if (const auto mean = tap.activity.mean(row); !mean.empty())
          masks[size_t(row)].push_back(strongest_units(mean, size_t(options.keep * double(mean.size()))));
    }
  }
  const auto script = carving_script(plan, options.expert, masks);
  auto fits = parse_script(to_json_script(script), plan);
  if (!fits) return tl::unexpected<Error>(fits.error());
  SY_CHECK(write_file(options.out, to_json_script(script) + "\n", cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
  Document layers = Document::array();
  std::vector<std::vector<std::string>> rows = {{"layer", "units", "in every domain", "of each domain alone, on average"}};
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    if (masks[size_t(row)].empty()) continue;
    const Carving carving = carve(masks[size_t(row)]);
    const auto used = [](const UnitMask& mask) { return std::count(mask.begin(), mask.end(), 1); };
    Document own = Document::array();
    double sum = 0;
    for (const UnitMask& mask : carving.experts) own.push_back(used(mask)), sum += double(used(mask));
    layers.push_back({{"layer", plan.moe_layers[size_t(row)]}, {"units", carving.residual.size()}, {"residual", used(carving.residual)}, {"experts", own}});
    rows.push_back({plan.row_name(row), fmt::format("{}", carving.residual.size()), fmt::format("{}", used(carving.residual)),
                    fmt::format("{:.1f}", sum / double(carving.experts.size()))});
  }
  if (cli.output.json()) {
    Document named = Document::array();
    for (size_t i = 0; i < domains.size(); ++i) named.push_back({{"name", domains[i]}, {"expert", i}, {"tokens", tokens[i]}});
    cli.output.json({{"schema", kSchema}, {"file", options.out}, {"expert", options.expert}, {"domains", named}, {"layers", layers}});
    return 0;
  }
  cli.output.table(rows);
  for (size_t i = 0; i < domains.size(); ++i) cli.output.info(fmt::format("expert {}: {} ({} tokens)", i, domains[i], tokens[i]));
  return 0;
}

struct SensitivityOptions : EditedTextInput {
  std::string each;
  int k = 1;
};

// The edit of one layer: --each FILE with its layers replaced, or top_k.
Result<std::vector<EditCommand>> edits_for(int layer, const std::vector<EditCommand>& each, int k) {
  if (each.empty()) return std::vector<EditCommand>{{TopK{{{layer}}, k}, {}}};
  std::vector<EditCommand> out = each;
  for (EditCommand& command : out) std::visit([&](auto& edit) {
      if constexpr (requires { edit.layers; }) edit.layers.layers = {layer};
    }, command.edit);
  return out;
}

Result<int> sensitivity(Cli& cli, const SensitivityOptions& options) {
  SY_TRY(const EditedText text, options.read(2));
  const ModelPlan& plan = text.checkpoint.plan;
  const std::vector<EditCommand>& start = text.edits;
  const std::vector<TokenId>& ids = text.ids;
  std::vector<EditCommand> each;
  if (!options.each.empty()) {
    SY_TRY(each, read_script(options.each, plan));
    for (const EditCommand& command : each)
      if (command.at_token.value_or(0) > 0) return fail(ErrorCode::kUsage, "an edit begins within the text.", options.each, "Leave out at_token.");
    for (const EditCommand& command : each)
      if (std::holds_alternative<LayerPath>(command.edit)) return fail(ErrorCode::kUsage, "a layer path is of the whole model, not of one layer.", options.each, "Give it with --edits.");
  }

  std::vector<int> layers = plan.moe_layers;
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.open(text, task));
  const auto vocab = size_t(plan.vocab);
  std::vector<EditEffect> effects(layers.size());
  std::atomic<size_t> done{0};
  {
    const Progress progress(cli.output, cli.progress(), [&] { return ProgressState{.step = "layers", .fraction = double(done) / double(layers.size()), .tokens = done * ids.size()}; });
    std::vector<RoutingFrame> none;
    for (size_t i = 0; i < layers.size(); ++i) {
      std::vector<EditCommand> script = start;
      SY_TRY(const std::vector<EditCommand> own, edits_for(layers[i], each, options.k));
      script.insert(script.end(), own.begin(), own.end());
      auto together = parse_script(to_json_script(script), plan);
      if (!together) return fail(together.error().code, together.error().what, fmt::format("layer {}", layers[i]), together.error().hint);
      ForcedPass base(*backend, plan, recipe_spans(start, plan), int(ids.size())), edited(*backend, plan, recipe_spans(*together, plan), int(ids.size()));
      base.begin(0, ids);
      edited.begin(0, ids);
      std::vector<float> base_logits;
      size_t at = 0;
      SY_CHECK(in_chunks(ids, plan, [&](std::span<const TokenId> tokens, std::span<float> logits) -> Result<void> {
        base_logits.resize(logits.size());
        SY_CHECK(base.forward(tokens, base_logits, CaptureLevel::kOff, none, &task));
        SY_CHECK(edited.forward(tokens, logits, CaptureLevel::kOff, none, &task));
        for (size_t t = 0; t < tokens.size() && at + t + 1 < ids.size(); ++t)
          effects[i].add(effect_at(std::span<const float>(base_logits).subspan(t * vocab, vocab), logits.subspan(t * vocab, vocab), ids[at + t + 1]));
        at += tokens.size();
        return {};
      }));
      ++done;
    }
  }
  if (cli.output.json()) {
    Document out = Document::array();
    for (size_t i = 0; i < layers.size(); ++i)
      out.push_back({{"layer", layers[i]}, {"dnll", effects[i].dnll()}, {"kl", effects[i].mean(&PositionEffect::kl)}, {"top1_flips", effects[i].top1_flip_rate()}});
    cli.output.json({{"schema", kSchema}, {"tokens", ids.size() - 1}, {"nll", effects[0].mean(&PositionEffect::nll_base)}, {"layers", out}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"layer", "change of loss", "KL", "top-1 flips"}};
  for (size_t i = 0; i < layers.size(); ++i)
    rows.push_back({fmt::format("{}", layers[i]), fmt::format("{:+.6f}", effects[i].dnll()), fmt::format("{:.6f}", effects[i].mean(&PositionEffect::kl)),
                    fmt::format("{:.2f} %", 100 * effects[i].top1_flip_rate())});
  cli.output.table(rows);
  return 0;
}

}  // namespace

void add_calibrate(CLI::App& app, Cli& cli) {
  auto* noun = add_command(app, "calibrate", "What texts and layers say about the experts, before one edits them.",
                           "  switchyard calibrate contrast demo --a code.jsonl --b prose.jsonl\n"
                           "  switchyard calibrate sensitivity demo --text-file notes.txt --k 1\n"
                           "  switchyard calibrate bank demo --texts prose.jsonl --out bank.safetensors");
  noun->require_subcommand(1);
  auto* comparing = add_command(*noun, "contrast", "Experts that two sets of texts use differently, with intervals and corrected p-values.",
                                "  switchyard calibrate contrast demo --a code.jsonl --b prose.jsonl\n"
                                "  switchyard calibrate contrast demo --a code.jsonl --b prose.jsonl --steer steer.json --top 50 --json");
  const auto options = std::make_shared<ContrastOptions>();
  comparing->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  comparing->add_option("--a", options->a, "Texts, one JSON object a line: {\"text\": ...} or {\"token_ids\": [...]}")->required()->type_name("JSONL");
  comparing->add_option("--b", options->b, "Texts to compare with")->required()->type_name("JSONL");
  comparing->add_option("--top", options->top, "Experts shown, by falling difference")->check(CLI::Range(1, 1000000))->capture_default_str();
  comparing->add_option("--resamples", options->resamples, "Of the texts, for the intervals; 0: none")->check(CLI::Range(0, 100000))->capture_default_str();
  comparing->add_option("--seed", options->seed, "Of the resampling")->capture_default_str();
  comparing->add_option("--level", options->level, "Corrected p (q) below which an expert counts as different")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  comparing->add_option("--steer", options->steer, "Edit script to write: steers towards A")->type_name("FILE");
  comparing->add_option("--steer-experts", options->steer_experts, "Experts lifted and put down per layer, at most")->check(CLI::Range(1, 65534))->capture_default_str();
  options->backend.add_options(*comparing);
  options->edits.add_options(*comparing);
  comparing->callback([&cli, options] { cli.action = [&cli, options] { return contrast(cli, *options); }; });

  auto* carving = add_command(*noun, "carve", "Cuts one expert into a core and a part for each domain, by the units that fire there.",
                              "  switchyard calibrate carve demo --texts domains.jsonl --expert 3 --out carved.json\n"
                              "  switchyard run demo --edits carved.json --prompt \"The router\"");
  const auto cut = std::make_shared<CarveOptions>();
  carving->add_option("MODEL", cut->model, "A folder, org/name of the HF cache, or demo")->required();
  carving->add_option("--texts", cut->texts, "Texts, one JSON object a line: {\"text\": ..., \"domain\": ...}")->required()->type_name("JSONL");
  carving->add_option("--expert", cut->expert, "The expert of every layer that is cut; all tokens go through it")->check(CLI::Range(0, 65534))->capture_default_str();
  carving->add_option("--keep", cut->keep, "Share of the units that a domain keeps")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  carving->add_option("--out", cut->out, "Edit script to write: the parts in the places 0, 1, ..., under pre_gate")->required()->type_name("FILE");
  cut->backend.add_options(*carving);
  carving->callback([&cli, cut] { cli.action = [&cli, cut] { return carve_experts(cli, *cut); }; });

  auto* sweeping = add_command(*noun, "sensitivity", "What an edit costs in each layer alone: loss, KL and flips against the unedited model.",
                               "  switchyard calibrate sensitivity demo --text-file assets/prompts/python.txt --k 1\n"
                               "  switchyard calibrate sensitivity demo --text-file notes.txt --each scheme.json --json");
  const auto sweep = std::make_shared<SensitivityOptions>();
  sweep->add_options(*sweeping);
  sweeping->add_option("--k", sweep->k, "Experts per token in the layer under test")->check(CLI::Range(1, 65534))->capture_default_str();
  sweeping->add_option("--each", sweep->each, "An edit script instead of --k; its layers are replaced by the one under test")->type_name("FILE");
  sweeping->callback([&cli, sweep] { cli.action = [&cli, sweep] { return sensitivity(cli, *sweep); }; });
  add_calibrate_bank(*noun, cli);
  add_calibrate_gradient(*noun, cli);
  add_calibrate_lens(*noun, cli);
  add_calibrate_prune(*noun, cli);
  add_calibrate_paths(*noun, cli);
}

}  // namespace switchyard

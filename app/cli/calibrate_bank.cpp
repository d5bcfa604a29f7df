// switchyard calibrate bank: what every router reads in given texts and what it chose, as the exemplars of the scheme
// sdm. See cli.h.
#include <algorithm>
#include <atomic>
#include <map>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/forced.h"
#include "app/cli/texts_file.h"
#include "engine/analysis/sdm_bank.h"
#include "engine/base/atomic_file.h"
#include "engine/routing/decision.h"
#include "engine/routing/scheme_file.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

constexpr size_t kChunk = 256;         // tokens whose router inputs are held at once
constexpr size_t kCalibrateEvery = 5;  // texts

struct BankOptions {
  std::string model, out, labels = "own";
  std::vector<std::string> texts;
  int most = 256;
  uint64_t seed = 0;
  BackendChoice backend;
};

// What the routers of some tokens read.
class Inputs final : public RouterTap {
 public:
  explicit Inputs(size_t rows) : rows_(rows) {}
  void see(int row, size_t token, std::span<const float> input) override {
    std::vector<float>& at = rows_[size_t(row)];
    width_ = input.size();
    at.resize(std::max(at.size(), (token + 1) * width_));
    std::copy(input.begin(), input.end(), at.begin() + int64_t(token * width_));
  }
  std::span<const float> of(int row, size_t token) const {
    return std::span(rows_[size_t(row)]).subspan(token * width_, width_);
  }

 private:
  std::vector<std::vector<float>> rows_;  // [tokens, width]
  size_t width_ = 0;
};

struct DomainText {
  std::vector<TokenId> ids;
  int domain = 0;
};

Result<std::vector<DomainText>> read_domains(const BankOptions& options, const Checkpoint& checkpoint) {
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  std::vector<DomainText> out;
  std::map<std::string, int> domains;
  for (const std::string& file : options.texts) {
    SY_TRY(std::vector<TextSequence> texts,
           read_texts(file, tokenizer ? tokenizer->get() : nullptr, checkpoint.plan.vocab));
    for (TextSequence& text : texts) {
      if (text.ids.size() > size_t(checkpoint.plan.context))
        return fail(
            ErrorCode::kUsage,
            fmt::format("a text has {} tokens, the model's context is {}.", text.ids.size(), checkpoint.plan.context),
            file);
      const int domain =
          domains.try_emplace(text.domain.empty() ? file : text.domain, int(domains.size())).first->second;
      if (!text.ids.empty()) out.push_back({std::move(text.ids), domain});
    }
  }
  if (out.size() < 2)
    return fail(ErrorCode::kUsage,
                fmt::format("{} text with tokens; a bank needs two at least: some for exemplars, some to calibrate.",
                            out.size()),
                options.texts[0], "Give more texts.");
  return out;
}

// Every fifth text; of fewer than five the last one.
bool calibrates(size_t text, size_t texts) {
  return texts < kCalibrateEvery ? text + 1 == texts : text % kCalibrateEvery == kCalibrateEvery - 1;
}

// The native run of one text.
Result<void> learn(const DomainText& text, bool calibrating, Backend& backend, const ModelPlan& plan, KvCache& cache,
                   SdmBankBuilder& builder, const Task& task) {
  const Recipe native;
  const int rows = int(plan.rows.size());
  cache.truncate(0);
  for (size_t from = 0; from < text.ids.size(); from += kChunk) {
    const size_t count = std::min(kChunk, text.ids.size() - from);
    int slots = 0;
    for (int row = 0; row < rows; ++row) slots = std::max(slots, slots_needed(plan.routed(row).router, nullptr));
    std::vector<RoutingFrame> frames(count, RoutingFrame(rows, plan.max_experts(), slots, CaptureLevel::kLogits));
    Inputs inputs{size_t(rows)};
    ForwardRequest request{.tokens = std::span(text.ids).subspan(from, count),
                           .cache = &cache,
                           .recipe = &native,
                           .sequence = int(text.ids.size())};
    request.rows = LogitRows::kNone;
    request.frames = frames;
    request.tap = &inputs;
    request.task = &task;
    SY_CHECK(backend.forward(request));
    for (size_t token = 0; token < count; ++token)
      for (int row = 0; row < rows; ++row) {
        const auto logits = frames[token].logits(row).first(size_t(plan.routed(row).router.experts));
        const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        builder.add(row, inputs.of(row, token), static_cast<ExpertId>(best), text.domain, calibrating);
      }
  }
  return {};
}

Result<int> bank(Cli& cli, const BankOptions& options) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  const ModelPlan& plan = checkpoint.plan;
  if (plan.encoder_layers > 0 || plan.couples_tokens())
    return fail(ErrorCode::kUsage, "routes tokens by what runs with them; a bank knows single tokens.",
                checkpoint.name);
  SY_TRY(const std::vector<DomainText> texts, read_domains(options, checkpoint));
  size_t longest = 0, total = 0;
  for (const DomainText& text : texts) longest = std::max(longest, text.ids.size()), total += text.ids.size();

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, int64_t(longest)));
  SdmBankBuilder builder(plan, options.most, options.labels == "own" ? BankLabels::kOwn : BankLabels::kDomain,
                         options.seed);
  const auto cache = backend->new_cache(int(longest));
  std::atomic<uint64_t> done{0};
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      return ProgressState{.step = "bank", .fraction = double(done) / double(total), .tokens = done};
    });
    for (size_t i = 0; i < texts.size(); ++i) {
      SY_CHECK(learn(texts[i], calibrates(i, texts.size()), *backend, plan, *cache, builder, task));
      done += texts[i].ids.size();
    }
  }
  SY_TRY(const BuiltBank built, builder.build());
  SY_CHECK(write_file(options.out, scheme_file_bytes(built.file),
                      cli.output.options.force ? Overwrite::kAllow : Overwrite::kRefuse));
  if (cli.output.json()) {
    Document layers = Document::array();
    for (size_t row = 0; row < built.rows.size(); ++row) {
      const BankRow& one = built.rows[row];
      layers.push_back({{"layer", plan.moe_layers[row]},
                        {"exemplars", one.exemplars},
                        {"calibration_points", one.points},
                        {"left_out", one.left_out},
                        {"classes", one.classes},
                        {"classes_dropped", one.classes_dropped}});
    }
    cli.output.json({{"schema", kSchema},
                     {"file", options.out},
                     {"texts", texts.size()},
                     {"tokens", total},
                     {"labels", options.labels},
                     {"layers", layers}});
    return 0;
  }
  std::vector<std::vector<std::string>> table = {
      {"layer", "exemplars", "calibration points", "left out (q = 0)", "experts", "experts without points"}};
  for (size_t row = 0; row < built.rows.size(); ++row) {
    const BankRow& one = built.rows[row];
    table.push_back({plan.row_name(int(row)), fmt::format("{}", one.exemplars), fmt::format("{}", one.points),
                     fmt::format("{}", one.left_out), fmt::format("{}", one.classes),
                     fmt::format("{}", one.classes_dropped)});
  }
  cli.output.table(table);
  return 0;
}

}  // namespace

void add_calibrate_bank(CLI::App& calibrate, Cli& cli) {
  auto* command = add_command(
      calibrate, "bank", "The exemplars of the scheme sdm: what every router reads in given texts, and what it chose.",
      "  switchyard calibrate bank demo --texts prose.jsonl --out bank.safetensors\n"
      "  switchyard calibrate bank demo --texts code.jsonl --texts prose.jsonl --labels domain --out bank.safetensors "
      "--json");
  const auto options = std::make_shared<BankOptions>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  command
      ->add_option("--texts", options->texts,
                   "Texts, one JSON object a line: {\"text\": ...} or {\"token_ids\": [...]}, optionally with "
                   "\"domain\" (else the file is one); may be repeated")
      ->required()
      ->type_name("JSONL")
      ->take_all();
  command->add_option("--out", options->out, "The safetensors file to write")->required()->type_name("FILE");
  command
      ->add_option(
          "--labels", options->labels,
          "own: the expert that the router chose is right; domain: the one that the text's domain chooses most often")
      ->check(CLI::IsMember({"own", "domain"}))
      ->type_name("KIND")
      ->capture_default_str();
  command
      ->add_option("--most", options->most,
                   "Exemplars of a layer, and calibration points: a random sample of the tokens")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Of the sample")->capture_default_str();
  options->backend.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return bank(cli, *options); }; });
}

}  // namespace switchyard

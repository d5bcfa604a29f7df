// switchyard score: teacher-forced loss of a text or of many, with edits, and against the unedited model.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/recording.h"
#include "app/cli/score_command.h"
#include "app/cli/text_input.h"
#include "app/cli/texts_file.h"
#include "engine/analysis/compare.h"
#include "engine/base/text.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct ScoreOptions {
  std::string model, texts;
  SequenceInput input;
  bool baseline = false;
  BackendChoice backend;
  EditsInput edits;
  RecordingOptions recording;
};

struct Loss {
  uint64_t tokens = 0;
  double sum = 0;  // nats
  double nll() const { return tokens ? sum / static_cast<double>(tokens) : 0; }
};

struct Scores {
  Loss loss;
  std::vector<std::pair<std::string, Loss>> domains;  // in order of appearance; texts without one are left out
  EditEffect effect;                                  // with --baseline
  RoutingShift shift{0};

  Loss* domain(const std::string& name) {
    if (name.empty()) return nullptr;
    const auto found = std::find_if(domains.begin(), domains.end(), [&](const auto& one) { return one.first == name; });
    if (found != domains.end()) return &found->second;
    return &domains.emplace_back(name, Loss{}).second;
  }
};

// A domain each.
Result<std::vector<TextSequence>> shipped_prompts(const Tokenizer* encoder) {
  if (!encoder)
    return fail(ErrorCode::kNotFound, "has no tokenizer.json, so it cannot read the prompts that come with the program.", "the model's folder",
                "Give --texts FILE.jsonl with token_ids.");
  SY_TRY(const std::filesystem::path assets, find_assets());
  std::vector<std::filesystem::path> files;
  std::error_code unreadable;  // nothing is found then, and said so
  for (const auto& entry : std::filesystem::directory_iterator(assets / "prompts", unreadable)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<TextSequence> texts;
  for (const std::filesystem::path& file : files) {
    SY_TRY(const std::string text, read_text(file.string()));
    SY_TRY(std::vector<TokenId> ids, encoder->encode(text));
    texts.push_back({std::move(ids), file.stem().string(), {}});
  }
  return texts;
}

Result<std::vector<TextSequence>> given_texts(const ScoreOptions& options, const Tokenizer* encoder, int vocab) {
  if (!options.texts.empty()) {
    if (options.input.given()) return fail(ErrorCode::kUsage, "--texts leaves no room for another text.");
    return read_texts(options.texts, encoder, vocab);
  }
  if (!options.input.given())
    return fail(ErrorCode::kUsage, "no text given.", {},
                "Give --text-file FILE (- is stdin), --token-ids 1,2,3 or --texts FILE.jsonl.");
  SY_TRY(std::vector<TokenId> ids, options.input.ids(encoder, vocab));
  return std::vector<TextSequence>{{std::move(ids), {}, {}}};
}

Result<void> check_lengths(const std::vector<TextSequence>& texts, int context) {
  for (size_t i = 0; i < texts.size(); ++i)
    if (texts[i].ids.size() > static_cast<size_t>(context))
      return fail(ErrorCode::kUsage,
                  fmt::format("sequence {} has {} tokens, the model's context is {}.", i, texts[i].ids.size(), context));
  if (std::none_of(texts.begin(), texts.end(), [](const auto& one) { return one.ids.size() > 1; }))
    return fail(ErrorCode::kUsage, "nothing to score: a text needs at least two tokens.");
  return {};
}

// One or two passes over the sequences in lock step: the edited model and, as baseline, the unedited one.
class Scorer {
 public:
  Scorer(const Checkpoint& checkpoint, Backend& backend, std::vector<RecipeSpan> spans, int capacity, bool baseline,
         CaptureLevel capture, uint8_t taps, GateAhead* ahead, TraceRecorder* recorder, const Task& task)
      : plan_(checkpoint.plan),
        edited_(backend, checkpoint.plan, std::move(spans), capacity),
        capture_(capture),
        recorder_(recorder),
        task_(task) {
    edited_.set_taps(taps, ahead);
    if (baseline) {
      base_.emplace(backend, checkpoint.plan, recipe_spans({}, checkpoint.plan), capacity);
      capture_ = std::max(capture_, CaptureLevel::kIds);
    }
    scores_.shift = RoutingShift(static_cast<int>(plan_.moe_layers.size()));
  }

  // domain: index into the trace's domains.
  Result<void> add(const TextSequence& text, uint32_t sequence, uint16_t domain) {
    edited_.begin(sequence, text.ids);
    if (base_) base_->begin(sequence);
    if (recorder_) SY_CHECK(recorder_->begin_sequence(sequence, static_cast<uint32_t>(text.ids.size()), {.domain = domain, .source_id = text.source_number(sequence)}));
    size_t at = 0;
    return in_chunks(text.ids, plan_, [&](std::span<const TokenId> tokens, std::span<float> logits) -> Result<void> {
      SY_CHECK(edited_.forward(tokens, logits, capture_, frames_, &task_));
      SY_CHECK(score(text, at, tokens.size(), logits));
      if (recorder_) SY_CHECK(record(sequence));
      at += tokens.size();
      tokens_done += tokens.size();
      return {};
    });
  }

  const Scores& scores() const { return scores_; }
  std::atomic<uint64_t> tokens_done{0};

 private:
  // Position t predicts the token at t + 1; the last position of a sequence predicts nothing known.
  Result<void> score(const TextSequence& text, size_t from, size_t count, std::span<float> logits) {
    const auto vocab = static_cast<size_t>(plan_.vocab);
    if (base_) {
      base_logits_.resize(logits.size());
      SY_CHECK(base_->forward(std::span(text.ids).subspan(from, count), base_logits_, CaptureLevel::kIds, base_frames_,
                              &task_));
      SY_CHECK(compare_routing());
    }
    Loss* domain = scores_.domain(text.domain);
    for (size_t i = 0; i < count && from + i + 1 < text.ids.size(); ++i) {
      const TokenId target = text.ids[from + i + 1];
      const auto row = logits.subspan(i * vocab, vocab);
      const double nll = negative_log_likelihood(row, target);
      for (Loss* loss : {&scores_.loss, domain})
        if (loss) *loss = {loss->tokens + 1, loss->sum + nll};
      if (base_)
        scores_.effect.add(effect_at(std::span<const float>(base_logits_).subspan(i * vocab, vocab), row, target));
    }
    return {};
  }

  Result<void> compare_routing() {
    for (size_t t = 0; t < frames_.size(); ++t)
      for (int row = 0; row < scores_.shift.rows(); ++row)
        SY_CHECK(scores_.shift.feed(row, base_frames_[t].used_ids(row), frames_[t].used_ids(row)));
    return {};
  }

  // Epochs only grow in a trace: each sequence starts the script anew.
  Result<void> record(uint32_t sequence) {
    const auto spans = static_cast<uint32_t>(edited_.spans().size());
    for (RoutingFrame& frame : frames_) {
      const uint32_t span = frame.header().recipe_epoch;
      const uint32_t epoch = spans == 1 && !edited_.chooses_path() ? 0 : sequence * spans + span;
      frame.header().recipe_epoch = epoch;
      if (epoch != last_epoch_) {
        SY_CHECK(recorder_->need_rows(decision_rows(plan_, *edited_.spans()[span].recipe)));
        SY_CHECK(recorder_->begin_epoch(epoch, rows_, to_json_script(edited_.spans()[span].edits)));
        last_epoch_ = epoch;
      }
      SY_CHECK(recorder_->append(frame));
      ++rows_;
    }
    return {};
  }

  const ModelPlan& plan_;
  ForcedPass edited_;
  std::optional<ForcedPass> base_;
  CaptureLevel capture_;
  TraceRecorder* recorder_;
  const Task& task_;
  Scores scores_;
  std::vector<RoutingFrame> frames_, base_frames_;
  std::vector<float> base_logits_;
  uint64_t rows_ = 0;
  std::optional<uint32_t> last_epoch_;
};

std::vector<double> overlaps(const RoutingShift& shift) {
  std::vector<double> out;
  for (int row = 0; row < shift.rows(); ++row) out.push_back(shift.overlap(row));
  return out;
}

Document scores_json(const Scores& scores, const std::vector<int>& moe_layers, const ScoreOptions& options) {
  Document document = {{"schema", kSchema},
                       {"tokens", scores.loss.tokens},
                       {"nll", scores.loss.nll()},
                       {"ppl", perplexity(scores.loss.nll())}};
  if (options.baseline) {
    const double base = scores.effect.mean(&PositionEffect::nll_base);
    document["baseline"] = {{"nll", base},
                            {"ppl", perplexity(base)},
                            {"kl", scores.effect.mean(&PositionEffect::kl)},
                            {"dnll", scores.effect.dnll()},
                            {"top1_flips", scores.effect.top1_flip_rate()},
                            {"routing_shift", overlaps(scores.shift)},
                            {"moe_layers", moe_layers}};
  }
  if (!scores.domains.empty()) {
    document["domains"] = Document::object();
    for (const auto& [name, loss] : scores.domains)
      document["domains"][name] = {{"tokens", loss.tokens}, {"nll", loss.nll()}, {"ppl", perplexity(loss.nll())}};
  }
  if (options.recording.wanted()) document["trace"] = options.recording.file();
  return document;
}

void show(Output& out, const Scores& scores, const std::vector<int>& moe_layers, bool baseline) {
  std::vector<std::vector<std::string>> rows = {{"tokens", fmt::format("{}", scores.loss.tokens)},
                                                {"nll", fmt::format("{:.6f} nats per token", scores.loss.nll())},
                                                {"perplexity", fmt::format("{:.4f}", perplexity(scores.loss.nll()))}};
  for (const auto& [name, loss] : scores.domains)
    rows.push_back({"  " + printable(name), fmt::format("{:.6f} nats per token over {}", loss.nll(), loss.tokens)});
  if (baseline) {
    rows.push_back({"unedited nll", fmt::format("{:.6f}, so {:+.6f} by the edits",
                                                scores.effect.mean(&PositionEffect::nll_base), scores.effect.dnll())});
    rows.push_back(
        {"KL(base || edited)", fmt::format("{:.6f} nats, 95 % below {:.6f}", scores.effect.mean(&PositionEffect::kl),
                                           scores.effect.kl_percentile(95))});
    rows.push_back({"top-1 flips", fmt::format("{:.2f} %", 100 * scores.effect.top1_flip_rate())});
    for (int row = 0; row < scores.shift.rows(); ++row)
      rows.push_back({fmt::format("same experts, layer {}", moe_layers[row]),
                      fmt::format("{:.2f} %", 100 * scores.shift.overlap(row))});
  }
  out.table(rows);
}

// take: gives the texts, by a tokenizer that may be null.
Result<Scores> read(Cli& cli, const ScoreOptions& options, const Checkpoint& checkpoint, const std::string& source,
                    const std::function<Result<std::vector<TextSequence>>(const Tokenizer*)>& take) {
  if (checkpoint.plan.encoder_layers > 0)
    return fail(ErrorCode::kUsage, "is an encoder-decoder; score knows one text a sequence and no target for it.",
                checkpoint.name, "Use run with --dump-logits for the logits of the decoder's first step.");
  SY_TRY(const std::vector<EditCommand> edits, options.edits.read(checkpoint.plan));
  if (const std::string note = coupling_note(checkpoint.plan); !note.empty()) {
    cli.output.info(note);
    if (std::any_of(edits.begin(), edits.end(), [](const EditCommand& edit) { return edit.at_token.value_or(0) > 0; }))
      return fail(ErrorCode::kUsage, "an edit begins within a text, which this model runs in one piece.", "--edits",
                  "Leave out at_token.");
  }
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  SY_TRY(const std::vector<TextSequence> texts, take(tokenizer ? tokenizer->get() : nullptr));
  SY_CHECK(check_lengths(texts, checkpoint.plan.context));
  size_t longest = 0, total = 0;
  for (const TextSequence& text : texts) {
    longest = std::max(longest, text.ids.size());
    total += text.ids.size();
  }

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const auto capacity = static_cast<int64_t>(longest) * (options.baseline ? 2 : 1);  // a cache of each pass
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, capacity, edits));
  if (!backend->info().note.empty()) cli.output.info(backend->info().note);
  std::vector<std::string> domains;  // of the texts, in order of appearance; a text without one has the domain ""
  std::vector<uint16_t> domain_of;
  for (const TextSequence& text : texts) {
    const auto found = std::find(domains.begin(), domains.end(), text.domain);
    domain_of.push_back(static_cast<uint16_t>(found - domains.begin()));
    if (found == domains.end()) domains.push_back(text.domain);
  }
  if (domains.size() > UINT16_MAX)
    return fail(ErrorCode::kUsage, fmt::format("{} domains are named; a trace holds up to {}.", domains.size(), UINT16_MAX), options.texts);
  std::shared_ptr<TraceRecorder> recorder;
  if (options.recording.wanted()) {
    // Evaluation (formats.md, section 6); no chunk is written larger than what it holds.
    const int chunk_rows = static_cast<int>(std::clamp<size_t>(total, 1024, 32768));
    const Document about = {{"command", "score"},
                            {"backend", backend->info().name},
                            {"sequences", texts.size()},
                            {"source", source}};
    SY_TRY(recorder, options.recording.create(checkpoint, edits_at_start(edits), about, cli.output.options.force,
                                              chunk_rows, task, domains));
  }
  std::unique_ptr<GateAhead> ahead;
  if (options.recording.taps() & Taps::kPredGate) {
    SY_TRY(ahead, GateAhead::make(checkpoint));
  }
  Scorer scorer(checkpoint, *backend, recipe_spans(edits, checkpoint.plan), static_cast<int>(longest), options.baseline,
                options.recording.level(), options.recording.taps(), ahead.get(), recorder.get(), task);
  {
    const Progress progress(cli.output, cli.progress(), [&] {
      const uint64_t done = scorer.tokens_done;
      return ProgressState{.step = "score", .fraction = double(done) / double(total), .tokens = done};
    });
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto added = scorer.add(texts[i], static_cast<uint32_t>(i), domain_of[i]);
      if (!added && recorder) SY_CHECK(recorder->close());  // what was scored stays
      SY_CHECK(added);
    }
  }
  if (recorder) SY_CHECK(recorder->close());
  if (recorder && recorder->paths().size() > 1) cli.output.info(several_traces(*recorder));
  return scorer.scores();
}

Result<int> score(Cli& cli, const ScoreOptions& options) {
  SY_CHECK(options.recording.check(cli.output.options.force));
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  SY_TRY(const Scores scores, read(cli, options, checkpoint, options.texts, [&](const Tokenizer* encoder) {
    return given_texts(options, encoder, checkpoint.plan.vocab);
  }));
  if (cli.output.json())
    cli.output.json(scores_json(scores, checkpoint.plan.moe_layers, options));
  else
    show(cli.output, scores, checkpoint.plan.moe_layers, options.baseline);
  return 0;
}

}  // namespace

Result<void> record_texts(Cli& cli, const std::string& model, const std::string& texts, const BackendChoice& backend,
                          const std::string& trace) {
  ScoreOptions options;
  options.backend = backend;
  options.recording.record_to(trace);
  SY_CHECK(options.recording.check(cli.output.options.force));
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(model));
  SY_CHECK(read(cli, options, checkpoint, texts.empty() ? "the prompts that come with the program" : texts, [&](const Tokenizer* encoder) {
    return texts.empty() ? shipped_prompts(encoder) : read_texts(texts, encoder, checkpoint.plan.vocab);
  }));
  return {};
}

void add_score(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "score", "Loss of a text under the model, edited and unedited.",
                              "  switchyard score demo --text-file assets/prompts/python.txt\n"
                              "  switchyard score demo --text-file notes.txt --edits mute.json --baseline --json\n"
                              "  switchyard score demo --texts eval.jsonl --trace eval.moetrace.h5");
  const auto options = std::make_shared<ScoreOptions>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  options->input.add_options(*command, "--text", "--text-file");
  command
      ->add_option("--texts", options->texts,
                   "A sequence per line: {\"text\": ...} or {\"token_ids\": [...]}, with optional domain")
      ->type_name("JSONL");
  command->add_flag("--baseline", options->baseline, "Score the unedited model too and compare");
  options->backend.add_options(*command);
  options->edits.add_options(*command);
  options->recording.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return score(cli, *options); }; });
}

}  // namespace switchyard

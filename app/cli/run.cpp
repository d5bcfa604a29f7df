// switchyard run: generates, streams the text, records the routing, reports the ids.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include <fmt/format.h>

#include "app/cli/adapt_input.h"
#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/help.h"
#include "app/cli/npy.h"
#include "app/cli/recording.h"
#include "app/cli/text_input.h"
#include "engine/model/linears.h"
#include "engine/runtime/session.h"
#include "engine/trace/replay.h"

namespace switchyard {
namespace {

struct RunOptions {
  std::string model;
  SequenceInput prompt;
  uint64_t max_new_tokens = 64;
  bool greedy = false, ignore_eos = false, chat = false;
  double temperature = 1, top_p = 1;
  int top_k = 0;
  uint64_t seed = 0;
  CLI::Option *temperature_given = nullptr, *top_p_given = nullptr, *top_k_given = nullptr;
  BackendChoice backend;
  EditsInput edits;
  RecordingOptions recording;
  AdaptInputOptions adapt;
  AdaptationPlan adaptation;
  std::string dump_logits, replay;
  int replay_sequence = 0;
  CLI::Option *max_new_tokens_given = nullptr, *seed_given = nullptr, *sequence_given = nullptr;
};

// The command line over generation_config.json; greedy where neither says more.
Result<Sampling> resolve_sampling(const RunOptions& options, const SamplingDefaults& defaults) {
  const bool given =
      options.temperature_given->count() + options.top_p_given->count() + options.top_k_given->count() > 0;
  if (options.greedy && given)
    return fail(ErrorCode::kUsage, "--greedy leaves no room for --temperature, --top-p or --top-k.");
  Sampling sampling;
  sampling.seed = options.seed;
  sampling.greedy = options.greedy || (!given && !defaults.do_sample);
  if (sampling.greedy) return sampling;
  sampling.temperature =
      options.temperature_given->count() ? static_cast<float>(options.temperature) : defaults.temperature;
  sampling.top_p = options.top_p_given->count() ? static_cast<float>(options.top_p) : defaults.top_p;
  sampling.top_k = options.top_k_given->count() ? options.top_k : defaults.top_k;
  if (!(sampling.temperature > 0 && sampling.temperature <= 1e6f))
    return fail(ErrorCode::kUsage, fmt::format("is {}; it needs to be above 0.", sampling.temperature), "--temperature",
                "For the most likely token use --greedy.");
  if (!(sampling.top_p > 0 && sampling.top_p <= 1))
    return fail(ErrorCode::kUsage, fmt::format("is {}; it needs to be above 0 and at most 1.", sampling.top_p),
                "--top-p");
  return sampling;
}

Document sampling_json(const Sampling& sampling) {
  if (sampling.greedy) return {{"greedy", true}};
  return {{"greedy", false},
          {"temperature", shortest(sampling.temperature)},
          {"top_p", shortest(sampling.top_p)},
          {"top_k", sampling.top_k},
          {"seed", sampling.seed}};
}

// The prompt's ids, and that they and the new tokens fit into the model's context.
Result<std::vector<TokenId>> prompt_ids(const RunOptions& options, const Checkpoint& checkpoint) {
  if (!options.prompt.given())
    return fail(ErrorCode::kUsage, "no prompt given.", {},
                "Give --prompt TEXT, --prompt-file FILE (- is stdin) or --token-ids 1,2,3.");
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  std::optional<ChatTemplate> chat;
  if (options.chat) {
    auto loaded = ChatTemplate::load(checkpoint.folder);
    if (!loaded && loaded.error().code == ErrorCode::kNotFound) loaded.error().code = ErrorCode::kUsage;
    if (!loaded) return tl::unexpected<Error>(loaded.error());
    chat = std::move(*loaded);
  }
  SY_TRY(std::vector<TokenId> ids, options.prompt.ids(tokenizer ? tokenizer->get() : nullptr, checkpoint.plan.vocab,
                                                      chat ? &*chat : nullptr));
  if (ids.empty()) return fail(ErrorCode::kUsage, "the prompt is empty.", {}, "Give at least one token.");
  const auto context = static_cast<uint64_t>(checkpoint.plan.context);
  if (ids.size() > context || options.max_new_tokens > context - ids.size())
    return fail(ErrorCode::kUsage,
                fmt::format("{} prompt tokens and {} new ones do not fit into the model's context of {}.", ids.size(),
                            options.max_new_tokens, context),
                {}, "Lower --max-new-tokens or shorten the prompt.");
  return ids;
}

// The trace's tokens are the prompt; one that is given too has to be the same.
Result<std::vector<TokenId>> replayed_prompt(const RunOptions& options, const Checkpoint& checkpoint, const Replay& replay) {
  if (!options.prompt.given()) {
    const auto context = static_cast<uint64_t>(checkpoint.plan.context);
    if (replay.prompt.size() > context || options.max_new_tokens > context - replay.prompt.size())
      return fail(ErrorCode::kUsage, fmt::format("its {} prompt tokens and {} new ones do not fit into the model's context of {}.",
                                                 replay.prompt.size(), options.max_new_tokens, context), options.replay);
    return replay.prompt;
  }
  SY_TRY(std::vector<TokenId> given, prompt_ids(options, checkpoint));
  if (given == replay.prompt) return given;
  const auto [own, its] = std::mismatch(given.begin(), given.end(), replay.prompt.begin(), replay.prompt.end());
  const auto text = [](auto at, auto end) { return at == end ? std::string("the end") : fmt::format("id {}", *at); };
  return fail(ErrorCode::kUsage,
              fmt::format("the prompt is not the trace's: token {} is {}, the trace has {}.", own - given.begin(), text(own, given.end()),
                          text(its, replay.prompt.end())),
              options.replay, "Leave the prompt out: the trace's is taken.");
}

// From where on the text is not the trace's, so that the model routed by itself.
void tell_divergence(Output& output, const SessionSnapshot& snapshot, const Replay& replay) {
  const std::vector<TokenId>&own = snapshot.generated_ids, &its = replay.generated;
  const auto at = std::mismatch(own.begin(), own.end(), its.begin(), its.end());
  const auto index = snapshot.prompt_ids.size() + size_t(at.first - own.begin());
  if (at.first != own.end() && at.second != its.end())
    output.warn(fmt::format("token {} is id {}, the trace has {}: only tokens that are the trace's are replayed, others the model routes itself.",
                            index, *at.first, *at.second));
  else if (own.end() - at.first > 1)  // the last one generated is not routed
    output.info(fmt::format("the trace ends before token {}; from there on the model routes itself.", index));
}

// Wakes the main thread when the session publishes.
class Bell {
 public:
  void ring() {
    const std::scoped_lock lock(mutex_);
    rung_ = true;
    wake_.notify_one();
  }
  void wait() {  // at most 100 ms
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(100), [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool rung_ = false;
};

ProgressState progress_of(const SessionSnapshot& snapshot, uint64_t max_new_tokens) {
  ProgressState state;
  const bool prefilling = snapshot.state == RunState::kPrefilling;
  state.step = prefilling ? "prefill" : "generate";
  state.tokens = snapshot.generated_ids.size();
  state.tokens_per_s = prefilling ? snapshot.prefill_tokens_per_s : snapshot.decode_tokens_per_s;
  if (max_new_tokens > 0) state.fraction = double(snapshot.generated_ids.size()) / double(max_new_tokens);
  state.dropped = snapshot.dropped_frames;
  return state;
}

bool running(const SessionSnapshot& snapshot) {
  return snapshot.state != RunState::kFinished && snapshot.state != RunState::kFailed &&
         snapshot.state != RunState::kIdle;
}

// Starts the run and streams its text until it ends, the reader goes or a signal comes.
std::shared_ptr<const SessionSnapshot> generate(Cli& cli, Session& session, const RunOptions& options,
                                                std::vector<TokenId> prompt) {
  Bell bell;
  session.set_listener([&bell] { bell.ring(); });
  const auto stop_on_signal = cli.interrupts.on_interrupt([&session] { session.send(Stop{}); });
  const Progress progress(
      cli.output, cli.progress(), [&] { return progress_of(*session.snapshot(), options.max_new_tokens); },
      !cli.output.json() && cli.output.data_to_terminal());
  std::optional<StreamDecoder> decoder;
  if (session.tokenizer()) decoder.emplace(session.tokenizer(), true);
  size_t shown = 0;
  const auto show = [&](const SessionSnapshot& snapshot) {
    std::string text;
    for (; decoder && shown < snapshot.generated_ids.size(); ++shown)
      text += decoder->push(snapshot.generated_ids[shown]);
    return cli.output.json() || text.empty() || cli.output.stream(text);
  };

  session.send(Start{std::move(prompt), options.max_new_tokens, false});
  if (cli.interrupts.signal() != 0) session.send(Stop{});  // one that came before the start had nothing to stop
  bool started = false;
  while (true) {
    bell.wait();
    const auto snapshot = session.snapshot();
    started =
        started || running(*snapshot) || snapshot->state == RunState::kFinished || snapshot->state == RunState::kFailed;
    if (!show(*snapshot)) session.send(Stop{});
    if (started && !running(*snapshot)) break;
    if (!started && snapshot->error) break;  // refused, as when a shard changed on disk
  }
  const auto last = session.wait();
  show(*last);
  if (decoder && !cli.output.json()) cli.output.stream(decoder->finish() + (cli.output.data_to_terminal() ? "\n" : ""));
  session.set_listener(nullptr);
  return last;
}

std::string_view finish_name(Finish finish) {
  switch (finish) {
    case Finish::kEos:
      return "eos";
    case Finish::kStopped:
      return "stopped";
    default:
      return "length";
  }
}

Document epochs_json(const SessionSnapshot& snapshot) {
  Document epochs = Document::array();
  for (const Epoch& epoch : snapshot.epochs) {
    Document edits = Document::array();
    for (const EditCommand& command : epoch.edits) edits.push_back(Document::parse(to_json(command)));
    epochs.push_back({{"from_token", epoch.first_token}, {"recipe_epoch", epoch.epoch}, {"edits", edits}});
  }
  return epochs;
}

// null: nothing was adapted.
Document adaptation_json(const SessionSnapshot& snapshot) {
  if (!snapshot.adaptation) return {};
  Document steps = Document::array();
  for (const AdaptationEntry& entry : snapshot.adaptation->log) {
    Document iterations = Document::array();
    for (const AdaptStep& step : entry.iterations) iterations.push_back(json_of(step));
    steps.push_back({{"number", entry.number},
                     {"from_token", entry.token},
                     {"context", entry.context},
                     {"loss_before", entry.loss_before},
                     {"loss_after", entry.loss_after},
                     {"rerouted", entry.rerouted},
                     {"path_distance", entry.path_distance},
                     {"norms", entry.norms},
                     {"edits", entry.edits},
                     {"seconds", entry.seconds},
                     {"iterations", iterations}});
  }
  return {{"method", name(snapshot.adaptation->plan.options.method)}, {"every", snapshot.adaptation->plan.every}, {"steps", steps}};
}

// What the adapter routers decided, under the adapters that were in force last.
Document adapters_json(const ModelPlan& plan, const SessionSnapshot& snapshot) {
  Document out = Document::array();
  const Recipe* recipe = snapshot.epochs.back().recipe.get();
  if (!snapshot.adapters || !recipe || recipe->adapters.empty()) return out;
  const std::vector<Linear> linears = linears_of(plan);
  for (const auto& [place, tally] : snapshot.adapters->linears) {
    const AdapterSet* set = recipe->adapters_at(place);
    if (!set) continue;
    const AdaptedLinear& linear = set->linears.at(place);
    Document means = Document::array(), last = Document::array();
    for (const double sum : tally.sums) means.push_back(sum / double(tally.tokens));
    for (const float weight : tally.last) last.push_back(shortest(weight));
    out.push_back({{"name", linear_name(plan, linears[size_t(place)]) + " adapter"},
                   {"layer", linears[size_t(place)].layer},
                   {"module", linears[size_t(place)].module},
                   {"adapter_router", set->choice.router},
                   {"adapters", linear.names},
                   {"tokens", tally.tokens},
                   {"mean_weights", means},
                   {"chosen", tally.chosen},
                   {"last_weights", last}});
  }
  return out;
}

Document result_json(const Session& session, const SessionSnapshot& snapshot, const RunOptions& options,
                     double load_seconds) {
  const ModelPlan& plan = session.checkpoint().plan;
  const auto tokenizer = session.tokenizer();
  std::vector<TokenId> prompt = snapshot.prompt_ids;
  if (snapshot.encoder_tokens > 0) prompt.resize(snapshot.encoder_tokens);  // without the decoder's start
  return {{"schema", kSchema},
          {"model",
           {{"family", plan.family},
            {"layers", plan.layers.size()},
            {"moe_layers", plan.moe_layers},
            {"experts", plan.max_experts()},
            {"experts_per_token", plan.max_experts_per_token()}}},
          {"backend", snapshot.backend.name},
          {"backend_detail", snapshot.backend.detail},
          {"sampling", sampling_json(snapshot.sampling)},
          {"prompt_ids", prompt},
          {"generated_ids", snapshot.generated_ids},
          {"text", tokenizer ? Document(tokenizer->decode(snapshot.generated_ids, true)) : Document()},
          {"finish", finish_name(snapshot.finish)},
          {"epochs", epochs_json(snapshot)},
          {"timing",
           {{"load_s", load_seconds},
            {"prefill_tokens_per_s", snapshot.prefill_tokens_per_s},
            {"decode_tokens_per_s", snapshot.mean_decode_tokens_per_s}}},
          {"trace", options.recording.wanted() ? Document(options.recording.file()) : Document()},
          {"dropped_frames", snapshot.dropped_frames},
          {"adaptation", adaptation_json(snapshot)},
          {"adapters", adapters_json(plan, snapshot)}};
}

void warn_of_edits_ahead(Output& output, const SessionSnapshot& snapshot) {
  for (const EditCommand& command : snapshot.scheduled)
    output.warn(fmt::format("\"{}\" at token {} lies beyond the run and never took effect.", describe(command.edit),
                            command.at_token.value_or(0)));
}

// The logits of every prompt position, under the edits, in a pass of their own; of an encoder-decoder those of the
// decoder's first step.
Result<NpyWriter> dump_logits(Cli& cli, const Checkpoint& checkpoint, const RunOptions& options,
                              const std::vector<EditCommand>& edits, const std::vector<TokenId>& prompt, Task& task) {
  const ModelPlan& plan = checkpoint.plan;
  const std::vector<TokenId> scored = plan.encoder_layers > 0 ? std::vector{plan.decoder_start} : prompt;
  SY_TRY(NpyWriter file, NpyWriter::create(options.dump_logits, scored.size(), static_cast<uint64_t>(plan.vocab),
                                           cli.output.options.force));
  const int capacity = static_cast<int>(prompt.size()) + 1;
  SY_TRY(const auto backend, options.backend.open(checkpoint, task, capacity, edits));
  ForcedPass pass(*backend, plan, recipe_spans(edits, plan), capacity);
  pass.begin(0, scored);
  std::vector<RoutingFrame> frames;
  if (plan.encoder_layers > 0) SY_CHECK(pass.encode(prompt, CaptureLevel::kOff, frames, &task));
  SY_CHECK(in_chunks(scored, plan, [&](std::span<const TokenId> tokens, std::span<float> logits) -> Result<void> {
    SY_CHECK(pass.forward(tokens, logits, CaptureLevel::kOff, frames, &task));
    return file.append(logits);
  }));
  return file;
}

Result<int> run(Cli& cli, RunOptions options) {
  SY_CHECK(options.recording.check(cli.output.options.force));
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(options.model));
  if (options.adapt.given()) {
    options.adaptation.options = options.adapt.options();
    SY_CHECK(validate(options.adaptation, checkpoint.plan));
    if (options.adaptation.options.method == AdaptMethod::kRewire && options.backend.name == "auto") options.backend.name = "reference";
  }
  SY_TRY(std::vector<EditCommand> edits, options.edits.read(checkpoint.plan));
  Task task;
  const auto cancel_on_signal = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  std::optional<Replay> replay;
  if (!options.replay.empty()) {
    SY_TRY(replay, read_replay(options.replay, options.replay_sequence, checkpoint.plan, &task));
    for (const std::string& note : replay->notes) cli.output.info(note);
    edits.insert(edits.begin(), replay->edit);  // a scheme of --edits comes later and wins
    if (options.max_new_tokens_given->count() == 0) options.max_new_tokens = replay->generated.size() + 1;
    if (options.seed_given->count() == 0) options.seed = replay->seed.value_or(options.seed);
  } else if (options.sequence_given->count() > 0) {
    return fail(ErrorCode::kUsage, "names a sequence of a trace.", "--replay-sequence", "Give --replay TRACE too.");
  }
  SY_TRY(const Sampling sampling, resolve_sampling(options, replay && replay->sampling ? *replay->sampling : checkpoint.sampling));
  SY_TRY(std::vector<TokenId> prompt, replay ? replayed_prompt(options, checkpoint, *replay) : prompt_ids(options, checkpoint));

  std::optional<NpyWriter> logits;
  if (!options.dump_logits.empty()) {
    SY_TRY(NpyWriter file, dump_logits(cli, checkpoint, options, edits, prompt, task));
    logits.emplace(std::move(file));
  }

  SessionOptions session_options;
  session_options.backend = options.backend.name;
  session_options.threads = options.backend.threads;
  session_options.context =
      static_cast<int>(prompt.size() + options.max_new_tokens + (checkpoint.plan.encoder_layers > 0));
  session_options.capture = options.recording.level();
  session_options.taps = options.recording.taps();
  session_options.sampling = sampling;
  session_options.ignore_eos = options.ignore_eos;
  session_options.keep_frames = false;
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<Session> session;
  {
    const Progress progress(cli.output, cli.progress(), [&task] {
      return ProgressState{task.step(), task.fraction()};
    });
    SY_TRY(session, Session::open(checkpoint, session_options, &task));
  }
  const double load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const BackendInfo backend = session->snapshot()->backend;
  if (!backend.note.empty()) cli.output.info(backend.note);
  if (const std::string note = coupling_note(checkpoint.plan); !note.empty()) cli.output.info(note);
  if (!edits.empty()) SY_CHECK(session->send(edits));
  if (options.adapt.given()) {
    session->send(StartAdaptation{options.adaptation});
    if (const auto taken = session->wait(); taken->error) return tl::unexpected<Error>(*taken->error);
  }

  std::shared_ptr<TraceRecorder> recorder;
  if (options.recording.wanted()) {
    Document about = {{"command", "run"},
                      {"backend", backend.name},
                      {"backend_detail", backend.detail},
                      {"threads", options.backend.threads},
                      {"sampling", sampling_json(sampling)},
                      {"max_new_tokens", options.max_new_tokens}};
    constexpr int kChunkRows = 1024;  // generation (formats.md, section 6)
    SY_TRY(recorder, options.recording.create(checkpoint, edits_at_start(edits), about, cli.output.options.force,
                                              kChunkRows, task));
    session->record_to(recorder);
  }

  const auto snapshot = generate(cli, *session, options, std::move(prompt));
  Document result = result_json(*session, *snapshot, options, load_seconds);
  session.reset();  // joins the engine thread
  if (recorder) SY_CHECK(recorder->close());
  if (recorder && recorder->paths().size() > 1) {
    result["traces"] = traces_json(*recorder);
    cli.output.info(several_traces(*recorder));
  }
  const bool interrupted = cli.interrupts.signal() != 0;
  if (snapshot->state == RunState::kFailed || (snapshot->state == RunState::kIdle && !interrupted))
    return tl::unexpected<Error>(
        snapshot->error.value_or(Error{ErrorCode::kInternal, "the run failed without saying why.", {}, {}}));
  if (logits) SY_CHECK(logits->commit());
  if (snapshot->adaptation && snapshot->adaptation->phase == AdaptationState::Phase::kFailed)
    cli.output.warn("the adaptation ended: " + snapshot->adaptation->reason);
  warn_of_edits_ahead(cli.output, *snapshot);
  if (replay) tell_divergence(cli.output, *snapshot, *replay);
  if (cli.output.json()) cli.output.json(result);
  cli.output.message(MessageLevel::kDebug, fmt::format("{} tokens, {:.1f} tokens/s", snapshot->generated_ids.size(),
                                                       snapshot->mean_decode_tokens_per_s));
  return interrupted ? 128 + cli.interrupts.signal() : 0;
}

}  // namespace

void add_run(CLI::App& app, Cli& cli) {
  auto* command =
      add_command(app, "run", "Generates a continuation; every token can be edited and recorded.",
                  "  switchyard run demo --prompt \"The router\" --greedy\n"
                  "  switchyard run demo --prompt-file assets/prompts/python.txt --max-new-tokens 32 --greedy --json\n"
                  "  switchyard run demo --replay run.moetrace.h5 --json\n"
                  "  switchyard run demo --prompt-file notes.txt --adapt spsa --adapt-every 64 --adapt-lr 0.02 --json\n"
                  "  switchyard run demo --prompt-file - --edits mute.json --trace run.moetrace.h5 < prompt.txt");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("MODEL", options->model, "A folder, org/name of the HF cache, or demo")->required();
  options->prompt.add_options(*command, "--prompt", "--prompt-file");
  options->max_new_tokens_given =
      command->add_option("--max-new-tokens", options->max_new_tokens, "Tokens to generate (64; with --replay as many as the trace)")
          ->check(whole_number(0, 1 << 24))
          ->type_name("N");
  command->add_flag("--greedy", options->greedy, "Always the most likely token");
  options->temperature_given =
      command->add_option("--temperature", options->temperature, "Logits divided by it (generation_config.json)")
          ->type_name("T");
  options->top_p_given =
      command
          ->add_option("--top-p", options->top_p, "Nucleus: smallest set of this probability (generation_config.json)")
          ->type_name("P");
  options->top_k_given =
      command->add_option("--top-k", options->top_k, "Among the K most likely; 0: off (generation_config.json)")
          ->check(whole_number(0, 1 << 24))
          ->type_name("K");
  options->seed_given = command->add_option("--seed", options->seed, "Of the sampler (0; with --replay the trace's)")
                            ->check(whole_number(0, UINT64_MAX))
                            ->type_name("N");
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on after an end-of-text token");
  options->backend.add_options(*command);
  options->edits.add_options(*command);
  options->recording.add_options(*command);
  command
      ->add_option("--dump-logits", options->dump_logits,
                   "Logits of the prompt as .npy, float32 [prompt tokens, vocabulary]; of an encoder-decoder "
                   "those of the decoder's first step, [1, vocabulary]")
      ->type_name("FILE");
  command
      ->add_option("--replay", options->replay,
                   "Route every token as this trace has it: its prompt, sampling, experts and weights")
      ->type_name("TRACE");
  options->sequence_given = command->add_option("--replay-sequence", options->replay_sequence, "Of the trace (0)")
                                ->check(whole_number(0, 1000000000))
                                ->type_name("N");
  options->adapt.add_options(*command, "--adapt", "--adapt-");
  command->add_option("--adapt-every", options->adaptation.every, "Tokens between two steps of adaptation")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_option("--adapt-max-steps", options->adaptation.max_steps, "Steps of adaptation at most")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_flag("--chat", options->chat, "Wrap the prompt, as a user's message, in the model's chat template");
  command->callback([&cli, options] { cli.action = [&cli, options] { return run(cli, *options); }; });
}

}  // namespace switchyard

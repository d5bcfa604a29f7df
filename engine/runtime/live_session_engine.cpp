// What the engine thread does: commands and due edits between tokens, then a chunk of the prompt or one token.
#include <algorithm>
#include <exception>
#include <new>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/runtime/live_session.h"
#include "engine/runtime/path_planner.h"

namespace switchyard {
namespace {

constexpr uint64_t kPrefillChunk = 256;  // tokens; chunks end at multiples of it, so that runs repeat bit for bit
constexpr uint64_t kMeasureEvery = 32;   // tokens between two measurements of time_of_record()

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void LiveSession::run() {
  while (auto commands = queue_.take(busy())) {
    const RunState before = state_;
    try {
      for (Command& command : *commands) handle(command);
      if (auto due = ledger_.apply_due(); !due) report(std::move(due).error());
      if (busy()) advance();
    } catch (const std::bad_alloc&) {
      report({ErrorCode::kMemory, "not enough memory", fmt::format("token {}", position()),
              "Use a lower capture level or a smaller context."});
      state_ = RunState::kFailed;
    } catch (const std::exception& error) {
      report({ErrorCode::kInternal, error.what(), fmt::format("token {}", position()), {}});
      state_ = RunState::kFailed;
    }
    publish(!commands->empty() || state_ != before || !busy());
  }
  stop_recording({});
}

void LiveSession::handle(Command& command) {
  std::visit(
      [&]<class C>(C& c) {
        if constexpr (std::is_same_v<C, TransportCommand>)
          std::visit([&](auto& transport) { handle(transport); }, c);
        else
          handle(c);
      },
      command);
}

Result<void> LiveSession::check_start(const Start& start) const {
  const std::string where = "prompt";
  if (start.prompt.empty()) return fail(ErrorCode::kUsage, "the prompt has no tokens.", where, "Type at least one.");
  for (size_t i = 0; i < start.prompt.size(); ++i)
    if (start.prompt[i] < 0 || start.prompt[i] >= checkpoint_.plan.vocab)
      return fail(
          ErrorCode::kUsage,
          fmt::format("token {} has id {}, the model knows 0 to {}", i, start.prompt[i], checkpoint_.plan.vocab - 1),
          where);
  const size_t wanted = start.prompt.size() + (checkpoint_.plan.encoder_layers > 0 ? 1 : 0);  // the decoder's start
  if (wanted > size_t(cache_->capacity()))
    return fail(ErrorCode::kUsage,
                fmt::format("the prompt has {} tokens, the context holds {}.", wanted, cache_->capacity()), where,
                "Shorten the prompt.");
  if (weights_) SY_CHECK(weights_->check_unchanged());
  return check_path_fits();
}

// A path that repeats layers keeps more keys and values than the model was opened for.
Result<void> LiveSession::check_path_fits() const {
  const std::vector<uint8_t>& path = ledger_.path_ahead().passes;
  if (path.empty()) return {};
  const uint64_t need = kv_bytes(checkpoint_.plan, cache_->capacity(), path), own = kv_bytes(checkpoint_.plan, cache_->capacity(), {});
  if (need <= own || need - own <= available_memory()) return {};
  return fail(ErrorCode::kMemory,
              fmt::format("the path needs {} of keys and values at {} tokens, {} more than the model alone; {} are available.", bytes_text(need),
                          cache_->capacity(), bytes_text(need - own), bytes_text(available_memory())),
              describe(ledger_.path_ahead()), "Repeat fewer layers, or open the model with a smaller context.");
}

void LiveSession::handle(Start& start) {
  if (auto fits = check_start(start); !fits) return report(std::move(fits).error());
  handle(Reset{});
  prompt_ = std::move(start.prompt);
  if (checkpoint_.plan.encoder_layers > 0) {
    encoder_tokens_ = prompt_.size();
    prompt_.push_back(checkpoint_.plan.decoder_start);
  }
  limit_ = last_amount_ = start.max_new_tokens;
  stop_after_prefill_ = start.paused;
  sequence_ = next_sequence_++;
  ledger_.begin_sequence(sequence_);
  begin_tree();
  if (adaptor_) {
    if (!adaptor_->keeps()) go_back_before_adaptation("Adaptation · as before, for a new sequence");
    adaptor_->begin_sequence();
  }
  error_.reset();
  state_ = RunState::kPrefilling;
}

void LiveSession::handle(const Reset&) {
  cache_->truncate(0);
  prompt_.clear();
  encoder_tokens_ = 0;
  generated_.clear();
  limit_ = last_amount_ = 0;
  stop_after_prefill_ = stop_after_token_ = false;
  ledger_.begin_sequence(sequence_);
  meter_ = {};
  adapter_log_ = {};
  shared_adapters_.reset();
  frames_ = std::make_shared<FrameLog>();
  branches_.clear();
  branch_ = 0;
  replay_to_ = 0;
  shared_branches_.reset();
  shadows_.restart(0);
  sink_begun_ = false;
  state_ = RunState::kIdle;
  finish_ = Finish::kNone;
  const std::scoped_lock lock(shared_mutex_);
  latest_frame_.reset();
}

void LiveSession::go_on() {
  finish_ = Finish::kNone;
  state_ = position() < prompt_.size() ? RunState::kPrefilling : RunState::kGenerating;
}

void LiveSession::handle(const Play& play) {
  if (!has_sequence()) return;
  runs_on_ = true;
  stop_after_prefill_ = stop_after_token_ = false;
  if (play.max_new_tokens > 0) {
    last_amount_ = play.max_new_tokens;
    limit_ = generated_.size() + play.max_new_tokens;
  } else if (generated_.size() >= limit_) {
    limit_ = generated_.size() + last_amount_;
  }
  if (generated_.size() < limit_) go_on();
}

void LiveSession::handle(const Step&) {
  if (!has_sequence()) return;
  runs_on_ = true;
  limit_ = std::max<uint64_t>(limit_, generated_.size() + 1);
  stop_after_token_ = true;
  go_on();
}

void LiveSession::handle(const Pause&) {
  if (busy()) state_ = RunState::kPaused;
}

void LiveSession::handle(const Stop&) {
  if (busy() || state_ == RunState::kPaused) finish(Finish::kStopped);
}

void LiveSession::finish(Finish finish) {
  finish_ = finish;
  state_ = RunState::kFinished;
  stop_after_token_ = false;
}

void LiveSession::handle(const SetSampling& set) {
  if (auto fits = validate(set.sampling); !fits) return report(std::move(fits).error());
  sampling_ = set.sampling;
}

void LiveSession::handle(EditRequest& request) {
  edits_taken_ += request.calls;
  if (auto added = ledger_.add(std::move(request.edits), std::move(request.author), Clock::now()); !added)
    report(std::move(added).error());
}

void LiveSession::handle(const MoveCursor& move) {
  ++edits_taken_;
  switch (move.kind) {
    case MoveCursor::kUndo:
      return ledger_.undo();
    case MoveCursor::kRedo:
      return ledger_.redo();
    case MoveCursor::kTo:
      return ledger_.move_cursor(move.cursor);
  }
}

void LiveSession::report(Error error) {
  error_ = std::move(error);
  ++error_serial_;
}

// Where the piece ends that runs from token `from` on in one forward pass.
uint64_t LiveSession::piece_end(uint64_t from) const {
  if (from < encoder_tokens_) return encoder_tokens_;
  if (from >= prompt_.size()) return from + 1;
  if (one_piece_) return prompt_.size();
  uint64_t to = std::min<uint64_t>(prompt_.size(), from - from % kPrefillChunk + kPrefillChunk);
  if (const auto edit = ledger_.next_scheduled(); edit && *edit > from) to = std::min(to, *edit);
  return to;
}

// One piece of the prompt, or one token.
void LiveSession::advance() {
  if (replaying()) return replay();
  if (adaptation_due()) return take_adaptation_step();
  const uint64_t from = position();
  if (ledger_.recipe()->path.chooser) return choose_path();
  if (from == known_tokens()) return choose_next();  // the run was prolonged: nothing was chosen from these logits
  const bool decode = from >= prompt_.size();
  const uint64_t to = piece_end(from);
  if (to > uint64_t(cache_->capacity())) return finish(Finish::kContextFull);

  const auto start = Clock::now();
  const Recipe& recipe = *ledger_.recipe();
  std::vector<RoutingFrame> frames = make_frames(to - from, recipe);
  double capture = seconds_since(start);
  const bool last = to == known_tokens();
  if (auto done = forward(from, to, last, recipe, frames); !done) {
    if (done.error().code == ErrorCode::kCancelled) return;  // a command waits; this work is done again, or not at all
    report(std::move(done).error());
    state_ = RunState::kFailed;
    return;
  }
  const size_t had = generated_.size();
  if (last) choose_next();
  const double seconds = seconds_since(start);
  const TokenId sampled = generated_.size() > had ? generated_.back() : -1;
  const auto keeping = Clock::now();
  keep_frames(frames, from, seconds / double(to - from), sampled);
  ledger_.tokens_routed(to - from);
  capture += seconds_since(keeping) + record_seconds_ * double(to - from);
  if (decode)
    meter_.decode(seconds_since(start), capture);
  else
    meter_.prefill(to - from, seconds_since(start), capture);
}

// Routers of layers decide from the prompt, before its first token.
void LiveSession::choose_path() {
  const std::shared_ptr<Task> task = queue_.begin_work(false);
  if (!task) return;
  const Recipe recipe = *ledger_.recipe();
  auto decided = decide_path(*backend_, checkpoint_.plan, recipe, *cache_, prompt_, sequence_, task.get());
  queue_.end_work();
  cache_->truncate(0);
  if (!decided) {
    if (decided.error().code == ErrorCode::kCancelled && task->cancelled()) return;
    report(std::move(decided).error());
    state_ = RunState::kFailed;
    return;
  }
  Recipe path;
  apply(LayerPath{.passes = passes_of(*decided)}, checkpoint_.plan, path);
  ledger_.decide_path(std::move(path.path.passes));
}

// frames: empty for none.
Result<void> LiveSession::forward(uint64_t from, uint64_t to, bool logits, const Recipe& recipe,
                                  std::vector<RoutingFrame>& frames) {
  const std::shared_ptr<Task> task = queue_.begin_work(from >= prompt_.size());
  if (!task) return fail(ErrorCode::kCancelled, "a command waits");
  std::vector<TokenId> tokens;
  for (uint64_t i = from; i < to; ++i) tokens.push_back(token(i));
  ForwardRequest request{.tokens = tokens,
                         .encode = from < encoder_tokens_,
                         .cache = cache_.get(),
                         .recipe = &recipe,
                         .sequence = from < prompt_.size() ? static_cast<int>(prompt_.size()) : 0,
                         .prompt = static_cast<int>(prompt_.size()),
                         .stream = sequence_,
                         .rows = logits ? LogitRows::kLast : LogitRows::kNone,
                         .logits = logits_,
                         .task = task.get()};
  if (capture_ != CaptureLevel::kOff) request.frames = frames;
  if (ahead_ && (taps_ & Taps::kPredGate)) {
    ahead_->begin(request.frames, nullptr);
    request.tap = ahead_.get();
  }
  AdapterLog decided;
  if (!recipe.adapters.empty()) request.adapter_log = &decided;
  auto done = backend_->forward(request);
  queue_.end_work();
  if (done) log_adapters(recipe, decided);
  if (!done && done.error().code == ErrorCode::kCancelled && !task->cancelled())
    return fail(ErrorCode::kInternal, "the backend stopped by itself: " + done.error().message());
  return done;
}

void LiveSession::log_adapters(const Recipe& recipe, const AdapterLog& decided) {
  if (recipe.adapters.empty() && adapters_logged_.empty()) return;
  if (recipe.adapters != adapters_logged_) {
    adapters_logged_ = recipe.adapters;
    adapter_log_ = {};
  }
  adapter_log_.add(decided);
}

std::vector<RoutingFrame> LiveSession::make_frames(size_t count, const Recipe& recipe) const {
  return std::vector<RoutingFrame>(count, make_frame(checkpoint_.plan, recipe, capture_, taps_));
}

// Chooses the next token from logits_, and ends or pauses the run where it is time.
void LiveSession::choose_next() {
  if (generated_.size() < limit_) {
    // Sequence 0 whatever the sequence: the same prompt and seed give the same text, in any run of any session.
    const auto& forced = checkpoint_.plan.forced_bos;
    const TokenId id = forced && generated_.empty() ? *forced : sample(logits_, sampling_, 0, known_tokens());
    generated_.push_back(id);
    const auto& eos = checkpoint_.plan.eos_ids;
    if (!options_.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end()) return finish(Finish::kEos);
  }
  if (stop_after_prefill_) {
    stop_after_prefill_ = stop_after_token_ = false;
    state_ = RunState::kPaused;
  } else if (generated_.size() >= limit_) {
    finish(Finish::kLength);
  } else if (known_tokens() > uint64_t(cache_->capacity())) {
    finish(Finish::kContextFull);
  } else if (stop_after_token_) {
    stop_after_token_ = false;
    state_ = RunState::kPaused;
  } else {
    state_ = RunState::kGenerating;
  }
}

void LiveSession::stamp(RoutingFrame& frame, uint64_t index, uint32_t epoch) const {
  FrameHeader& header = frame.header();
  header.token_index = index;
  header.token_id = token(index);
  header.position = static_cast<uint32_t>(index - (index < encoder_tokens_ ? 0 : encoder_tokens_));
  header.sequence = sequence_;
  header.recipe_epoch = epoch;
  header.phase = index < prompt_.size() ? Phase::kPrefill : Phase::kDecode;
}

void LiveSession::keep_frames(std::vector<RoutingFrame>& frames, uint64_t from, double seconds, TokenId sampled) {
  std::shared_ptr<const RoutingFrame> newest;
  for (size_t i = 0; i < frames.size(); ++i) {
    stamp(frames[i], from + i, ledger_.recipe()->epoch);
    frames[i].header().token_seconds = static_cast<float>(seconds);
    frames[i].header().sampled_id = i + 1 == frames.size() ? sampled : -1;
    if (sink_) record(frames[i]);
  }
  if (capture_ == CaptureLevel::kOff)
    record_seconds_ = 0;
  else if (from % kMeasureEvery == 0)
    record_seconds_ = time_of_record(frames.back());
  for (size_t i = 0; i < frames.size(); ++i) {
    if (options_.keep_frames) {
      frames_->append(std::move(frames[i]));
      newest = frames_->at(from + i);
    } else {
      newest = std::make_shared<const RoutingFrame>(std::move(frames[i]));
    }
    if (!shadows_.empty()) shadows_.feed(newest, ledger_.recipe());
  }
  const std::scoped_lock lock(shared_mutex_);
  latest_frame_ = std::move(newest);
}

// Seconds of what a backend does to fill one frame, by doing it once more into a frame that is thrown away.
double LiveSession::time_of_record(const RoutingFrame& frame) {
  const FrameHeader& header = frame.header();
  RoutingFrame copy(header.moe_layers, header.experts, header.slots, header.capture, header.passes);
  const std::vector<float> no_weights(header.slots);
  const auto start = Clock::now();
  for (int row = 0; row < frame.rows(); ++row) {
    const Decision decision{.k_used = frame.layer(row).k_used, .stats = frame.layer(row).stats};
    const auto weights = header.capture >= CaptureLevel::kWeights ? frame.weights(row) : no_weights;
    copy.record(row, decision, frame.ids(row), weights, frame.kinds(row), frame.logits(row));
  }
  return seconds_since(start);
}

void LiveSession::handle(RecordTo& record) {
  stop_recording({});
  sink_ = std::move(record.sink);
  sink_begun_ = false;
  sink_epoch_.reset();
  sink_sequences_ = 0;
  for (BranchState& branch : branches_) branch.recorded.clear();
}

void LiveSession::record(const RoutingFrame& frame) {
  const auto write = [&]() -> Result<void> {
    const uint64_t index = frame.header().token_index;
    const Epoch& epoch = ledger_.current_epoch();
    const bool other_recipe = sink_epoch_ != epoch.epoch;
    if (other_recipe) SY_CHECK(sink_->need_rows(decision_rows(checkpoint_.plan, *epoch.recipe)));
    if (!sink_begun_) SY_CHECK(begin_record(index));
    if (other_recipe) {
      SY_CHECK(sink_->begin_epoch(epoch.epoch, index, to_json_script(epoch.edits)));
      sink_epoch_ = epoch.epoch;
    }
    return sink_->append(frame);
  };
  if (auto written = write(); !written) stop_recording(written);
}

// A sequence of the record for what the running branch routes from token `index` on. Tokens before it that an earlier
// sequence of the record holds are not written again: the new one names it.
Result<void> LiveSession::begin_record(uint64_t index) {
  auto& recorded = running().recorded;
  SequenceOrigin fork;
  if (!recorded.empty()) fork = {recorded.back().second, uint32_t(index)};
  const auto prompt = uint32_t(prompt_.size() - std::min<uint64_t>(index, prompt_.size()));
  SY_CHECK(sink_->begin_sequence(sequence_, prompt, fork));
  recorded.emplace_back(index, sink_sequences_++);
  sink_begun_ = true;
  return {};
}

// why: an error of the sink, or nothing. The run goes on without the record.
void LiveSession::stop_recording(Result<void> why) {
  if (!sink_) return;
  Result<void> closed = sink_->close();
  dropped_ = sink_->dropped();
  sink_.reset();
  if (!why)
    report(std::move(why).error());
  else if (!closed)
    report(std::move(closed).error());
}

}  // namespace switchyard

// The Session: an engine thread over one backend. Callers' side in live_session.cpp, what the engine thread does with
// commands and tokens in live_session_engine.cpp, branches in live_session_branches.cpp.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/runtime/command_queue.h"
#include "engine/runtime/edit_ledger.h"
#include "engine/runtime/run_meter.h"
#include "engine/runtime/session.h"
#include "engine/runtime/shadow_meter.h"
#include "engine/trace/sink.h"

namespace switchyard {

class LiveSession final : public Session {
 public:
  // weights: asked at each Start whether a shard changed on disk; may be null. complaint: the first snapshot's error.
  LiveSession(Checkpoint checkpoint, std::unique_ptr<Backend> backend, std::shared_ptr<const WeightStore> weights,
              std::shared_ptr<const Tokenizer> tokenizer, const SessionOptions& options, std::optional<Error> complaint = {});
  ~LiveSession() override;

  const Checkpoint& checkpoint() const override { return checkpoint_; }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return tokenizer_; }
  void send(TransportCommand command) override { queue_.push(std::move(command)); }
  Result<void> send(EditCommand edit, std::string author) override;
  Result<void> send(std::vector<EditCommand> script, std::string author) override;
  void undo() override { queue_.push(MoveCursor{MoveCursor::kUndo}); }
  void redo() override { queue_.push(MoveCursor{MoveCursor::kRedo}); }
  void undo_to(size_t cursor) override { queue_.push(MoveCursor{MoveCursor::kTo, cursor}); }
  void record_to(std::shared_ptr<TraceSink> sink) override { queue_.push(RecordTo{std::move(sink)}); }
  std::shared_ptr<const SessionSnapshot> snapshot() const override;
  std::shared_ptr<const RoutingFrame> latest_frame() const override;
  void set_listener(std::function<void()> on_change) override;
  std::shared_ptr<const SessionSnapshot> wait() override;

 private:
  using Clock = std::chrono::steady_clock;

  Result<void> check(const std::vector<EditCommand>& edits) const;

  // Everything below belongs to the engine thread.
  void run();
  void handle(Command& command);
  void handle(Start& start);
  void handle(const Play& play);
  void handle(const Pause&);
  void handle(const Step&);
  void handle(const Stop&);
  void handle(const Reset&);
  void handle(const SetSampling& set);
  void handle(const SetCapture& set) { capture_ = set.level; }
  void handle(const SetTaps& set);
  void handle(const SetThreads& set) { backend_->set_threads(set.threads); }
  void handle(EditRequest& request);
  void handle(const MoveCursor& move);
  void handle(RecordTo& record);
  void handle(const Rewind& rewind);
  void handle(const SwitchBranch& change);
  void handle(SetShadows& set);
  void handle(StartAdaptation& start);
  void handle(const FreezeAdaptation& freeze);
  void handle(const RevertAdaptation&);
  Result<void> check_start(const Start& start) const;
  Result<void> check_path_fits() const;
  Result<void> check_rewind(uint64_t token) const;

  // A branch of the sequence and, where it does not run, what it takes to go on with it.
  struct BranchState {
    Branch shown;
    std::vector<TokenId> generated;
    uint64_t limit = 0, last_amount = 0;
    EditLedger::Mark mark;             // position: tokens routed
    std::unique_ptr<KvCache> cache;    // null: let go, or the branch runs
    std::shared_ptr<FrameLog> frames;
    std::vector<float> logits;         // only where nothing was chosen from them yet
    uint64_t parked_at = 0;            // place in the order of leaving
    // Sequences of the record that hold its rows, each with its first token.
    std::vector<std::pair<uint64_t, int64_t>> recorded;
  };
  BranchState& running() { return branches_[branch_]; }
  void begin_tree();
  void park();  // the running branch
  void take_over(uint32_t branch, bool runs_on);
  void let_go_of_branches();
  uint64_t routed() const { return std::max(position(), replay_to_); }  // by this branch, also where run again
  bool replaying() const { return position() < replay_to_; }
  void replay();
  const Epoch& epoch_at(uint64_t token) const;
  void restart_shadows();
  // Steps of adaptation that led to this branch's recipe here, in this sequence; `here`: one was taken before this token.
  int steps_taken(bool* here = nullptr) const;
  bool adaptation_due() const;
  void take_adaptation_step();
  void go_back_before_adaptation(const char* name);
  Result<void> begin_record(uint64_t index);

  void advance();
  void choose_path();
  uint64_t piece_end(uint64_t from) const;
  Result<void> forward(uint64_t from, uint64_t to, bool logits, const Recipe& recipe, std::vector<RoutingFrame>& frames);
  void log_adapters(const Recipe& recipe, const AdapterLog& decided);
  std::vector<RoutingFrame> make_frames(size_t count, const Recipe& recipe) const;
  void stamp(RoutingFrame& frame, uint64_t index, uint32_t epoch) const;
  void keep_frames(std::vector<RoutingFrame>& frames, uint64_t from, double seconds, TokenId sampled);
  void choose_next();
  void record(const RoutingFrame& frame);
  void stop_recording(Result<void> why);
  double time_of_record(const RoutingFrame& frame);

  bool busy() const { return state_ == RunState::kPrefilling || state_ == RunState::kGenerating; }
  bool has_sequence() const { return !prompt_.empty(); }
  uint64_t known_tokens() const { return prompt_.size() + generated_.size(); }
  TokenId token(uint64_t index) const { return index < prompt_.size() ? prompt_[index] : generated_[index - prompt_.size()]; }
  uint64_t position() const { return uint64_t(cache_->length()); }
  void go_on();
  void finish(Finish finish);
  void report(Error error);
  void publish(bool at_once);

  const Checkpoint checkpoint_;
  const std::unique_ptr<Backend> backend_;
  const std::shared_ptr<const WeightStore> weights_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const SessionOptions options_;
  const bool one_piece_;  // the prompt may not be cut
  std::unique_ptr<KvCache> cache_;

  RunState state_ = RunState::kIdle;
  Finish finish_ = Finish::kNone;
  CaptureLevel capture_;
  uint8_t taps_;
  std::unique_ptr<GateAhead> ahead_;  // where taps_ ask for it
  Sampling sampling_;
  uint32_t sequence_ = 0, next_sequence_ = 0;
  std::vector<TokenId> prompt_, generated_;
  uint64_t encoder_tokens_ = 0;           // of the prompt
  uint64_t limit_ = 0, last_amount_ = 0;  // tokens to generate: in all, and asked for last
  bool stop_after_prefill_ = false, stop_after_token_ = false;
  std::vector<float> logits_;             // of the newest token routed
  EditLedger ledger_;
  uint64_t edits_taken_ = 0;
  std::vector<BranchState> branches_;     // of the sequence, by id
  uint32_t branch_ = 0;
  uint64_t parked_ = 0;                   // branches ever left
  uint64_t replay_to_ = 0;                // tokens before it were routed already, under the recipes of their epochs
  bool runs_on_ = false;                  // after the replay; else it is paused then
  SharedList<Epoch> replay_epochs_;
  std::optional<SharedList<Branch>> shared_branches_;
  ShadowMeter shadows_;
  std::optional<LiveAdaptor> adaptor_;
  RunMeter meter_;
  std::shared_ptr<FrameLog> frames_;
  double record_seconds_ = 0;             // what the backend spends on one frame, measured now and then

  std::shared_ptr<TraceSink> sink_;
  bool sink_begun_ = false;               // it knows the sequence
  std::optional<uint32_t> sink_epoch_;    // the last it knows
  int64_t sink_sequences_ = 0;            // begun in it
  uint64_t dropped_ = 0;                  // by the sink that recorded last

  std::optional<Error> error_;
  uint64_t error_serial_ = 0;
  Clock::time_point published_at_;

  CommandQueue queue_;
  mutable std::mutex shared_mutex_;       // guards the next two
  std::shared_ptr<const SessionSnapshot> snapshot_;
  std::shared_ptr<const RoutingFrame> latest_frame_;

  AdapterLog adapter_log_;
  std::vector<AdapterRef> adapters_logged_;  // those whose decisions the log holds
  std::shared_ptr<const AdapterLog> shared_adapters_;
  Clock::time_point adapters_shared_at_;
  std::mutex listener_mutex_;
  std::function<void()> listener_;
  std::thread thread_;                    // last: starts when all else is there
};

}  // namespace switchyard

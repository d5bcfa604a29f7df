// The Session: an engine thread over one backend. Callers' side in live_session.cpp, what the engine thread does with
// commands and tokens in live_session_engine.cpp.
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
  void handle(const SetThreads& set) { backend_->set_threads(set.threads); }
  void handle(EditRequest& request);
  void handle(const MoveCursor& move);
  void handle(RecordTo& record);
  Result<void> check_start(const Start& start) const;

  void advance();
  uint64_t piece_end(uint64_t from) const;
  Result<void> forward(uint64_t from, uint64_t to, bool logits, std::vector<RoutingFrame>& frames);
  std::vector<RoutingFrame> make_frames(size_t count) const;
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
  Sampling sampling_;
  uint32_t sequence_ = 0, next_sequence_ = 0;
  std::vector<TokenId> prompt_, generated_;
  uint64_t encoder_tokens_ = 0;           // of the prompt
  uint64_t limit_ = 0, last_amount_ = 0;  // tokens to generate: in all, and asked for last
  bool stop_after_prefill_ = false, stop_after_token_ = false;
  std::vector<float> logits_;             // of the newest token routed
  EditLedger ledger_;
  uint64_t edits_taken_ = 0;
  RunMeter meter_;
  std::shared_ptr<FrameLog> frames_;
  double record_seconds_ = 0;             // what the backend spends on one frame, measured now and then

  std::shared_ptr<TraceSink> sink_;
  bool sink_begun_ = false;               // it knows the sequence
  std::optional<uint32_t> sink_epoch_;    // the last it knows
  uint64_t dropped_ = 0;                  // by the sink that recorded last

  std::optional<Error> error_;
  uint64_t error_serial_ = 0;
  Clock::time_point published_at_;

  CommandQueue queue_;
  mutable std::mutex shared_mutex_;       // guards the next two
  std::shared_ptr<const SessionSnapshot> snapshot_;
  std::shared_ptr<const RoutingFrame> latest_frame_;
  std::mutex listener_mutex_;
  std::function<void()> listener_;
  std::thread thread_;                    // last: starts when all else is there
};

}  // namespace switchyard

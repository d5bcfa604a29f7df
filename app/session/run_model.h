// RunModel: what the window knows of the run. The only reader of frames in the window: it owns the Session,
// drains new frames at most 30 times a second, keeps the running analyses up to date, holds the one
// selection and the one time cursor, and passes commands on. GUI thread only; never waits for the engine.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <QElapsedTimer>
#include <QObject>
#include <QString>
#include <QTimer>

#include "app/session/jobs.h"
#include "app/session/journal.h"
#include "app/session/token_text.h"
#include "app/session/trace_run.h"
#include "engine/base/atomic_file.h"
#include "engine/runtime/session.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/trace/trace.h"
#include "views/view.h"

namespace switchyard {

struct OpenRequest {
  QString model;  // folder, "org/name", "demo"
  std::string backend = "auto";
  int threads = 0;  // 0: cores - 1, at least 1
};

class RunModel : public QObject {
  Q_OBJECT
 public:
  // Opens checkpoint and session on a job's thread. Tests put a slow or failing one here.
  using OpenSession = std::function<Result<std::unique_ptr<Session>>(const OpenRequest&, Task&)>;
  static Result<std::unique_ptr<Session>> open_session(const OpenRequest& request, Task& task);

  explicit RunModel(Jobs& jobs, OpenSession open = open_session, QObject* parent = nullptr);
  ~RunModel() override;

  // Opening and closing. What was open stays until the new one is there; a failure changes nothing.
  void open_model(const OpenRequest& request);
  void open_trace(const std::filesystem::path& path, uint64_t sequence = 0);
  void cancel_opening();
  void close();
  bool opening() const { return opening_ != 0; }
  bool has_session() const { return session_ != nullptr; }
  bool has_trace() const { return trace_ != nullptr; }
  bool is_empty() const { return !session_ && !trace_; }
  const Checkpoint* checkpoint() const { return session_ ? &session_->checkpoint() : nullptr; }
  const TraceRun* trace() const { return trace_.get(); }
  const OpenRequest& opened() const { return opened_; }
  // Read by a job after the model opened; model_changed() tells. nullptr: why_no_chat_template() says why.
  const ChatTemplate* chat_template() const { return chat_template_.get(); }
  const QString& why_no_chat_template() const { return why_no_chat_template_; }

  // What views read; constant while they draw.
  const RunData& data() const { return data_; }
  std::string token_name(TokenId id) const;  // one line, never empty: " the", "↵", "#123" without a tokenizer
  const std::vector<std::string>& texts() const { return texts_; }  // per token, for a text view (token_text.h)
  const SessionSnapshot* snapshot() const { return data_.snapshot.get(); }
  RunState state() const { return data_.snapshot ? data_.snapshot->state : RunState::kIdle; }
  bool running() const { return state() == RunState::kGenerating || state() == RunState::kPrefilling || starting_; }
  bool has_sequence() const { return data_.snapshot && !data_.snapshot->prompt_ids.empty(); }

  const Selection& selection() const { return selection_; }
  const TimeCursor& cursor() const { return cursor_; }
  void select(const Selection& selection);
  void set_cursor(const TimeCursor& cursor);  // clamped to the tokens there are
  void step_cursor(int by);
  int model_layer() const;  // of the selection
  void set_window(int tokens);

  // Transport. Prompts are tokenised by a job.
  enum StartMode { kRun, kStep };  // kStep: the prompt and one token, then wait
  // chat: wraps the prompt, as a user's message, in the model's chat template, which it must have.
  void start(const QString& prompt, uint64_t max_new_tokens, StartMode mode = kRun, bool chat = false);
  void play(uint64_t max_new_tokens = 0);
  void pause();
  void step();
  void stop();
  void reset();
  void set_sampling(const Sampling& sampling);
  void set_capture(CaptureLevel level);
  void set_taps(uint8_t taps);  // of Taps
  // Whether traces that are recorded from now on hold the routers' weights.
  void set_record_routers(bool on) { record_routers_ = on; }
  bool records_routers() const { return record_routers_; }
  void set_threads(int threads);

  // Branches: the token is the next to be routed on a new branch; the one that is left is kept.
  void rewind(uint64_t token);
  void switch_branch(uint32_t branch);

  // Recipes that are only looked at (SessionSnapshot::shadows). A file is read by a job; the outcome of all comes as
  // note() or failed().
  void add_shadow(const std::filesystem::path& file);
  void add_shadow(const QString& name, std::vector<EditCommand> script);
  void add_shadow_of_edits();   // the edits in force now
  void remove_shadow(size_t index);
  void clear_shadows();
  const std::vector<ShadowRecipe>& shadows() const { return shadows_; }

  // Adaptation while the model runs (SessionSnapshot::adaptation); what cannot be comes as failed().
  void adapt(const AdaptationPlan& plan);
  void freeze_adaptation(bool frozen);
  void revert_adaptation();

  // Edits. Refused ones are told through failed().
  bool edit(EditCommand command);
  bool edit(std::vector<EditCommand> script, const std::string& author);
  void undo();
  void redo();
  void undo_to(size_t cursor);
  // The recipe that the next edit meets, those on their way in it; nullptr: native. Each key press builds on it.
  const Recipe* recipe_ahead() const;
  // The layer path of the next sequence, edits on their way counted.
  const LayerPath& path_ahead() const;
  bool can_undo() const;
  bool can_redo() const;
  // Files are read and written by jobs; the outcome comes as note() or failed().
  void load_script(const std::filesystem::path& file);
  void save_script(const std::filesystem::path& file, Overwrite overwrite);
  // Starts the trace's prompt with its sampling and its routes: the scheme "replay" in all layers, an entry of the
  // history like any other. Read by a job.
  void replay(const std::filesystem::path& trace, int sequence = 0);
  // The model under the edits in force as a checkpoint folder (engine/surgery), as a job.
  void export_model(const std::filesystem::path& folder);

  // Recording to a trace. The header hashes the model's files: a job.
  void record_to(const std::filesystem::path& path, bool overwrite);
  void stop_recording();
  bool recording() const { return recorder_ != nullptr || preparing_recording_ != 0; }
  const std::filesystem::path& recording_path() const { return recording_path_; }
  uint64_t recorded_tokens() const { return recorder_ ? recorder_->committed_tokens() : 0; }

  void set_journal(Journal* journal) { journal_ = journal; }

  // Takes in what has been published so far; also called by the wake-up timer.
  void drain();

 Q_SIGNALS:
  void model_changed();                            // opened, closed, or opening began or ended
  void data_changed();                             // new frames or a new snapshot; at most 30 Hz
  void started(const QString& prompt, bool chat);  // a sequence began with it; a refused start says failed() instead
  void selection_changed();
  void cursor_changed();
  void history_changed();
  void recording_changed();
  void failed(const switchyard::Error& error);  // each error once
  void note(const QString& sentence);           // worth a toast, not an error

 private:
  struct Wake {  // shared with the engine thread's listener
    std::atomic<bool> pending{false};
    std::atomic<int64_t> posted_ns{0};  // when, on the steady clock
    RunModel* model = nullptr;
  };
  void adopt(std::unique_ptr<Session> session, const OpenRequest& request);
  void adopt(TraceRun run, const std::filesystem::path& path);
  void read_chat_template();
  void tear_down();  // session and trace; joined off the GUI thread
  void prepare_data(const ModelPlan& plan, std::shared_ptr<const Tokenizer> tokenizer);
  void clear_sequence();
  void wake_up();
  void follow_recording();
  void take_frames(const FrameLog& log, bool& more);
  void count_frame(uint64_t index);
  void take_texts();
  void look_ahead(const std::vector<EditCommand>& edits);
  std::optional<uint32_t> sequence() const;  // nullopt: none yet

  Jobs& jobs_;
  OpenSession open_;
  Jobs::Id opening_ = 0;
  OpenRequest opened_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<TraceRun> trace_;
  std::shared_ptr<const ChatTemplate> chat_template_;
  QString why_no_chat_template_;
  std::shared_ptr<Wake> wake_;
  QTimer throttle_;
  QElapsedTimer since_drain_;
  qint64 drain_every_ms_ = 33;            // longer where painting keeps the GUI thread busy
  bool starting_ = false;                 // from the command to the first snapshot of its sequence
  std::optional<uint32_t> started_from_;  // the sequence there was before
  QString starting_prompt_;
  bool starting_chat_ = false;

  RunData data_;
  std::vector<std::string> texts_;
  TokenTextBuilder text_builder_{nullptr};
  std::unique_ptr<Load> load_all_, load_window_;
  std::unique_ptr<Affinity> affinity_;
  uint64_t window_begin_ = 0;  // first token counted in load_window_
  uint64_t kept_from_ = 0;     // frames before it were let go
  uint64_t error_serial_ = 0;
  uint64_t edits_sent_ = 0;  // to this session, undo and redo too: SessionSnapshot::edits_taken follows

  Selection selection_;
  TimeCursor cursor_;

  std::vector<ShadowRecipe> shadows_;

  std::shared_ptr<TraceRecorder> recorder_;
  std::filesystem::path recording_path_;
  bool record_routers_ = false;
  Jobs::Id preparing_recording_ = 0;  // 0: no trace is being prepared
  Journal* journal_ = nullptr;
};

}  // namespace switchyard

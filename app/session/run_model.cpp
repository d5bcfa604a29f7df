// Opening, draining, commands. GUI thread; the only thing other threads touch is Wake.
#include "app/session/run_model.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "app/session/edits_in_force.h"
#include "engine/model/router_tensors.h"

namespace switchyard {
namespace {

constexpr qint64 kDrainEveryMs = 33, kDrainAtLeastEveryMs = 200;
constexpr uint64_t kFramesPerDrain = 512;  // bounds one turn of the GUI thread

int64_t steady_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

}  // namespace

Result<std::unique_ptr<Session>> RunModel::open_session(const OpenRequest& request, Task& task) {
  task.report(-1, "reading headers");
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(request.model.toStdString()));
  SessionOptions options;
  options.backend = request.backend;
  options.threads = request.threads > 0 ? request.threads : std::max(1, int(std::thread::hardware_concurrency()) - 1);
  options.sampling.greedy = !checkpoint.sampling.do_sample;
  options.sampling.temperature = checkpoint.sampling.temperature;
  options.sampling.top_p = checkpoint.sampling.top_p;
  options.sampling.top_k = checkpoint.sampling.top_k;
  return Session::open(checkpoint, options, &task);
}

RunModel::RunModel(Jobs& jobs, OpenSession open, QObject* parent)
    : QObject(parent), jobs_(jobs), open_(std::move(open)), wake_(std::make_shared<Wake>()) {
  wake_->model = this;
  throttle_.setSingleShot(true);
  throttle_.setTimerType(Qt::PreciseTimer);
  connect(&throttle_, &QTimer::timeout, this, &RunModel::drain);
  since_drain_.start();
}

RunModel::~RunModel() {
  cancel_opening();
  if (session_) session_->set_listener({});
  session_.reset();  // a trace in progress is closed cleanly
}

void RunModel::open_model(const OpenRequest& request) {
  cancel_opening();
  opening_ = jobs_.start(
      "open", tr("Opening %1").arg(request.model), [open = open_, request](Task& task) { return open(request, task); },
      [this, request](Result<std::unique_ptr<Session>> session) {
        opening_ = 0;
        if (session)
          adopt(std::move(*session), request);
        else if (session.error().code != ErrorCode::kCancelled)
          Q_EMIT failed(session.error());
        Q_EMIT model_changed();
      });
  Q_EMIT model_changed();
}

void RunModel::open_trace(const std::filesystem::path& path, uint64_t sequence) {
  cancel_opening();
  opening_ = jobs_.start(
      "open", tr("Opening %1").arg(QString::fromStdString(path.filename().string())),
      [path, sequence](Task& task) { return load_trace_run(path, sequence, &task); },
      [this, path](Result<TraceRun> run) {
        opening_ = 0;
        if (run)
          adopt(std::move(*run), path);
        else if (run.error().code != ErrorCode::kCancelled)
          Q_EMIT failed(run.error());
        Q_EMIT model_changed();
      });
  Q_EMIT model_changed();
}

void RunModel::cancel_opening() {
  if (opening_ != 0) jobs_.cancel(opening_);
}

void RunModel::close() {
  cancel_opening();
  tear_down();
  data_ = RunData{};
  texts_.clear();
  Q_EMIT model_changed();
  Q_EMIT data_changed();
  Q_EMIT history_changed();
}

void RunModel::tear_down() {
  trace_.reset();
  chat_template_.reset();
  why_no_chat_template_ = tr("No model is open.");
  shadows_.clear();
  starting_ = false;
  preparing_recording_ = 0;
  if (recorder_) {
    recorder_.reset();
    recording_path_.clear();
    Q_EMIT recording_changed();
  }
  if (!session_) return;
  session_->set_listener({});
  std::shared_ptr<Session> old(std::move(session_));
  jobs_.start(
      "", tr("Closing the model"),
      [old = std::move(old)](Task&) mutable {
        old.reset();
        return Result<void>{};
      },
      [](Result<void>) {});
}

void RunModel::adopt(std::unique_ptr<Session> session, const OpenRequest& request) {
  tear_down();
  session_ = std::move(session);
  opened_ = request;
  prepare_data(session_->checkpoint().plan, session_->tokenizer());
  error_serial_ = edits_sent_ = 0;
  session_->set_listener([wake = wake_] {
    if (wake->pending.exchange(true)) return;
    wake->posted_ns = steady_ns();
    QMetaObject::invokeMethod(wake->model, &RunModel::wake_up, Qt::QueuedConnection);
  });
  if (journal_) journal_->model_opened(request.model.toStdString());
  read_chat_template();
  jobs_.start(
      "router tensors", tr("Reading router biases"),
      [checkpoint = session_->checkpoint()](Task&) { return read_router_tensors(checkpoint); },
      [this, target = session_.get()](Result<std::vector<RouterTensors>> tensors) {
        if (session_.get() != target) return;
        if (!tensors) return Q_EMIT failed(tensors.error());
        if (tensors->empty()) return;
        data_.router_tensors = std::move(*tensors);
        ++data_.serial;
        Q_EMIT data_changed();
      });
  drain();
  Q_EMIT selection_changed();
}

void RunModel::adopt(TraceRun run, const std::filesystem::path& path) {
  tear_down();
  trace_ = std::make_unique<TraceRun>(std::move(run));
  opened_ = OpenRequest{QString::fromStdString(path.string())};
  prepare_data(trace_->plan, trace_->tokenizer);
  data_.snapshot = trace_->snapshot;
  data_.frames = trace_->frames;
  data_.router_tensors = trace_->router_tensors;
  data_.prompt_tokens = trace_->snapshot->prompt_ids.size();
  for (uint64_t i = 0; i < data_.frames.size(); ++i) count_frame(i);
  take_texts();
  ++data_.serial;
  if (trace_->tokens_left_out > 0)
    Q_EMIT note(
        tr("The last %1 tokens of the trace do not fit into memory and are not shown.").arg(trace_->tokens_left_out));
  for (const std::string& line : trace_->info.notes) Q_EMIT note(QString::fromStdString(line));
  Q_EMIT selection_changed();
  Q_EMIT cursor_changed();
  Q_EMIT data_changed();
  Q_EMIT history_changed();
}

void RunModel::prepare_data(const ModelPlan& plan, std::shared_ptr<const Tokenizer> tokenizer) {
  const int rows = int(plan.moe_layers.size()), experts = plan.max_experts(), window = data_.window;
  data_ = RunData{};
  data_.window = window;
  data_.plan = &plan;
  load_all_ = std::make_unique<Load>(rows, experts);
  load_window_ = std::make_unique<Load>(rows, experts);
  affinity_ = std::make_unique<Affinity>(rows, experts);
  data_.load_all = load_all_.get();
  data_.load_window = load_window_.get();
  data_.affinity = affinity_.get();
  text_builder_ = TokenTextBuilder(std::move(tokenizer));
  selection_ = Selection{rows * 5 / 8, std::nullopt, std::nullopt};
  clear_sequence();
}

void RunModel::clear_sequence() {
  data_.frames.clear();
  data_.pieces.clear();
  data_.token_ids.clear();
  data_.prompt_tokens = 0;
  texts_.clear();
  text_builder_.clear();
  load_all_->clear();
  load_window_->clear();
  affinity_->clear();
  window_begin_ = kept_from_ = 0;
  cursor_.reset();
  data_.later_rows.clear();
}

// A wake-up that had to wait was behind a repaint: as much time as that took is left for input before the next.
void RunModel::wake_up() {
  const qint64 late = (steady_ns() - wake_->posted_ns) / 1'000'000;
  drain_every_ms_ = std::clamp(kDrainEveryMs + late, kDrainEveryMs, kDrainAtLeastEveryMs);
  const qint64 since = since_drain_.elapsed();
  if (since >= drain_every_ms_) return drain();
  if (!throttle_.isActive()) throttle_.start(int(drain_every_ms_ - since));
}

void RunModel::drain() {
  since_drain_.restart();
  wake_->pending = false;  // before reading: what is published from here on wakes again
  if (!session_) return;
  const auto before = data_.snapshot;
  const auto snapshot = session_->snapshot();
  if (!snapshot) return;
  const bool had_cursor = cursor_.has_value();
  if (before && (before->sequence != snapshot->sequence || before->frames != snapshot->frames)) clear_sequence();
  data_.snapshot = snapshot;
  if (snapshot->edits_taken == edits_sent_) data_.recipe_ahead.reset();
  data_.prompt_tokens = snapshot->prompt_ids.size();
  const bool begun = starting_ && sequence() != started_from_;
  if (begun) starting_ = false;
  take_texts();
  bool more = false;
  if (snapshot->frames) take_frames(*snapshot->frames, more);
  ++data_.serial;
  if (more) {
    wake_->pending = true;
    throttle_.start(1);
  }
  follow_recording();
  if (!snapshot->recording && recorder_ && before && before->recording) {  // the engine gave the sink up
    recorder_.reset();
    if (journal_) journal_->recording_to({});
    Q_EMIT recording_changed();
  }
  const bool edited = !before || before->history.size() != snapshot->history.size() ||
                      before->history_cursor != snapshot->history_cursor ||
                      before->epochs.size() != snapshot->epochs.size() || before->sequence != snapshot->sequence;
  const bool dragged = before && !before->history.empty() && !snapshot->history.empty() &&
                       before->history.back().sentence != snapshot->history.back().sentence;
  if (edited || dragged) {
    if (journal_) journal_->history_changed(snapshot->history, snapshot->history_cursor);
    Q_EMIT history_changed();
  }
  if (had_cursor && !cursor_) Q_EMIT cursor_changed();
  if (begun) Q_EMIT started(starting_prompt_, starting_chat_);
  Q_EMIT data_changed();
  if (snapshot->error && snapshot->error_serial > error_serial_) {
    error_serial_ = snapshot->error_serial;
    starting_ = false;
    Q_EMIT failed(*snapshot->error);
  }
}

void RunModel::take_frames(const FrameLog& log, bool& more) {
  // The log may be ahead of the snapshot: every frame shown has its token's text.
  const uint64_t have = data_.frames.size(), size = std::min<uint64_t>(log.size(), data_.token_ids.size());
  const uint64_t until = std::min(size, have + kFramesPerDrain), first_kept = log.first_kept();
  more = until < size;
  const auto fresh = log.range(have, until);
  data_.frames.resize(until - fresh.size());  // let go before we came: null
  data_.frames.insert(data_.frames.end(), fresh.begin(), fresh.end());
  for (uint64_t i = have; i < until; ++i) count_frame(i);
  for (; kept_from_ < std::min(first_kept, until); ++kept_from_) data_.frames[kept_from_].reset();
}

void RunModel::count_frame(uint64_t index) {
  // Shapes agree by construction, so that feeding cannot fail.
  const auto feed = [&](Load& load, const RoutingFrame& frame, bool add) {
    for (int row = 0; row < frame.header().moe_layers; ++row) {
      const auto ids = frame.ids(row);
      (void)(add ? load.feed(row, ids, int(ids.size())) : load.remove(row, ids, int(ids.size())));
    }
  };
  if (const auto& frame = data_.frames[index]; frame && frame->header().capture != CaptureLevel::kOff) {
    feed(*load_all_, *frame, true);
    feed(*load_window_, *frame, true);
    for (int row = 0; row + 1 < frame->header().moe_layers; ++row)
      (void)affinity_->feed(row, frame->ids(row), frame->ids(row + 1));
    auto& later = data_.later_rows;
    for (int row = frame->header().moe_layers; row < frame->rows(); ++row)
      if (const auto at = std::lower_bound(later.begin(), later.end(), row); frame->passed(row) && (at == later.end() || *at != row))
        later.insert(at, row);
  }
  while (index + 1 - window_begin_ > uint64_t(data_.window)) {
    const auto& old = data_.frames[window_begin_++];
    if (old && old->header().capture != CaptureLevel::kOff) feed(*load_window_, *old, false);
  }
}

void RunModel::set_window(int tokens) {
  data_.window = std::max(1, tokens);
  if (!load_window_) return;
  load_window_->clear();
  const uint64_t size = data_.frames.size();
  window_begin_ = size > uint64_t(data_.window) ? size - uint64_t(data_.window) : 0;
  for (uint64_t i = window_begin_; i < size; ++i) {
    const auto& frame = data_.frames[i];
    if (!frame || frame->header().capture == CaptureLevel::kOff) continue;
    for (int row = 0; row < frame->header().moe_layers; ++row)
      (void)load_window_->feed(row, frame->ids(row), int(frame->ids(row).size()));
  }
  ++data_.serial;
  Q_EMIT data_changed();
}

void RunModel::take_texts() {
  const SessionSnapshot& s = *data_.snapshot;
  const size_t known = s.prompt_ids.size() + s.generated_ids.size();
  for (size_t i = data_.token_ids.size(); i < known; ++i) {
    const TokenId id = i < s.prompt_ids.size() ? s.prompt_ids[i] : s.generated_ids[i - s.prompt_ids.size()];
    TokenText text = text_builder_.push(id);
    data_.token_ids.push_back(id);
    data_.pieces.push_back(std::move(text.printable));
    texts_.push_back(std::move(text.text));
  }
}

void RunModel::select(const Selection& selection) {
  if (!data_.plan || selection == selection_) return;
  const int rows = int(data_.plan->moe_layers.size());
  if (rows == 0) return;
  selection_ = selection;
  selection_.moe_layer = std::clamp(selection.moe_layer, 0, rows - 1);
  Q_EMIT selection_changed();
}

void RunModel::set_cursor(const TimeCursor& cursor) {
  TimeCursor wanted = cursor;
  if (wanted && data_.frames.empty()) wanted.reset();
  if (wanted) *wanted = std::min(*wanted, data_.tokens() - 1);
  if (wanted == cursor_) return;
  cursor_ = wanted;
  Q_EMIT cursor_changed();
}

void RunModel::step_cursor(int by) {
  if (data_.frames.empty()) return;
  const auto at = int64_t(data_.shown_index(cursor_)), last = int64_t(data_.tokens()) - 1;
  set_cursor(uint64_t(std::clamp<int64_t>(at + by, 0, last)));
}

int RunModel::model_layer() const {
  if (!data_.plan || data_.plan->moe_layers.empty()) return 0;
  return data_.plan->moe_layers[size_t(selection_.moe_layer)];
}

std::optional<uint32_t> RunModel::sequence() const {
  return has_sequence() ? std::optional(data_.snapshot->sequence) : std::nullopt;
}

void RunModel::read_chat_template() {
  why_no_chat_template_ = tr("The chat template is still being read.");
  const Session* const target = session_.get();
  jobs_.start(
      "", tr("Reading the chat template"),
      [folder = session_->checkpoint().folder](Task&) { return ChatTemplate::load(folder); },
      [this, target](Result<ChatTemplate> read) {
        if (session_.get() != target) return;
        if (read)
          chat_template_ = std::make_shared<const ChatTemplate>(std::move(*read));
        else
          why_no_chat_template_ = QString::fromStdString(read.error().message());
        Q_EMIT model_changed();
      });
}

void RunModel::start(const QString& prompt, uint64_t max_new_tokens, StartMode mode, bool chat) {
  if (!session_) return;
  const auto tokenizer = session_->tokenizer();
  if (!tokenizer)
    return Q_EMIT failed({ErrorCode::kNotFound, "The model's folder has no tokenizer.json, so a prompt cannot be read.",
                          session_->checkpoint().folder.string(),
                          "Put the model's tokenizer.json beside config.json."});
  starting_ = true;
  started_from_ = sequence();
  starting_prompt_ = prompt;
  starting_chat_ = chat;
  if (journal_) journal_->prompt_used(prompt.toStdString());
  const Session* const target = session_.get();
  jobs_.start(
      "tokenise", tr("Tokenising the prompt"),
      [tokenizer, text = prompt.toStdString(),
       wrap = chat ? chat_template_ : nullptr](Task&) -> Result<std::vector<TokenId>> {
        if (!wrap || text.empty()) return tokenizer->encode(text);
        SY_TRY(const std::string wrapped, wrap->render_prompt(text));
        return tokenizer->encode(wrapped, false);  // the template brings its own special tokens
      },
      [this, target, max_new_tokens, mode](Result<std::vector<TokenId>> ids) {
        if (session_.get() != target) return;
        if (!ids || ids->empty()) {
          starting_ = false;
          if (ids || ids.error().code != ErrorCode::kCancelled)
            Q_EMIT failed(
                ids ? Error{ErrorCode::kUsage, "The prompt is empty.", "", "Type some text, or take a demo prompt."}
                    : ids.error());
          return Q_EMIT data_changed();
        }
        session_->send(Start{std::move(*ids), max_new_tokens, mode == kStep});
      });
  Q_EMIT data_changed();
}

void RunModel::play(uint64_t max_new_tokens) {
  if (session_) session_->send(Play{max_new_tokens});
}
void RunModel::pause() {
  if (session_) session_->send(Pause{});
}
void RunModel::step() {
  if (session_) session_->send(Step{});
}
void RunModel::stop() {
  if (session_) session_->send(Stop{});
}
void RunModel::reset() {
  if (session_) session_->send(Reset{});
}
void RunModel::set_sampling(const Sampling& sampling) {
  if (session_) session_->send(SetSampling{sampling});
}
void RunModel::set_capture(CaptureLevel level) {
  if (session_) session_->send(SetCapture{level});
}
std::string RunModel::token_name(TokenId id) const {
  return TokenTextBuilder(session_ ? session_->tokenizer() : nullptr).push(id).printable;
}
void RunModel::set_taps(uint8_t taps) {
  if (session_) session_->send(SetTaps{taps});
}
void RunModel::set_threads(int threads) {
  if (session_) session_->send(SetThreads{threads});
}

bool RunModel::edit(EditCommand command) {
  if (!session_) return false;
  if (const auto sent = session_->send(command); !sent) return Q_EMIT failed(sent.error()), false;
  look_ahead({std::move(command)});
  return true;
}

bool RunModel::edit(std::vector<EditCommand> script, const std::string& author) {
  if (!session_ || script.empty()) return false;
  if (const auto sent = session_->send(script, author); !sent) return Q_EMIT failed(sent.error()), false;
  look_ahead(script);
  return true;
}

void RunModel::look_ahead(const std::vector<EditCommand>& edits) {
  ++edits_sent_;
  Recipe ahead;
  if (const Recipe* met = recipe_ahead()) ahead = *met;
  ahead.path = path_ahead();
  for (const EditCommand& command : edits)
    if (command.at_token.value_or(0) <= data_.tokens()) apply(command.edit, *data_.plan, ahead);
  data_.recipe_ahead = std::make_shared<const Recipe>(std::move(ahead));
  ++data_.serial;
}

const Recipe* RunModel::recipe_ahead() const {
  if (data_.recipe_ahead) return data_.recipe_ahead.get();
  return data_.snapshot ? recipe_in_force(*data_.snapshot) : nullptr;
}

const LayerPath& RunModel::path_ahead() const {
  static const LayerPath kOnce;
  if (data_.recipe_ahead) return data_.recipe_ahead->path;
  return data_.snapshot ? data_.snapshot->path_ahead : kOnce;
}

void RunModel::undo() {
  if (!session_) return;
  ++edits_sent_;
  session_->undo();
}
void RunModel::redo() {
  if (!session_) return;
  ++edits_sent_;
  session_->redo();
}
void RunModel::undo_to(size_t cursor) {
  if (!session_) return;
  ++edits_sent_;
  session_->undo_to(cursor);
}
bool RunModel::can_undo() const {
  return session_ && data_.snapshot && (data_.snapshot->history_cursor > 0 || data_.recipe_ahead);
}
bool RunModel::can_redo() const {
  return session_ && data_.snapshot && data_.snapshot->history_cursor < data_.snapshot->history.size();
}

}  // namespace switchyard

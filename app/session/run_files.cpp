// RunModel's files: edit scripts in and out, recordings. Work is done by jobs; GUI thread.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>

#include "app/session/edit_script_file.h"
#include "app/session/edits_in_force.h"
#include "app/session/run_model.h"
#include "engine/surgery/checkpoint_writer.h"
#include "engine/trace/replay.h"

namespace switchyard {
namespace {

constexpr uintmax_t kLargestScript = uintmax_t(16) << 20;

// The engine closes the file; this waits for its final name.
Result<void> wait_for_trace(const std::filesystem::path& path, const Task& task) {
  const std::filesystem::path part = path.string() + ".part";
  for (int i = 0; i < 3000 && !task.cancelled(); ++i) {
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored) && !std::filesystem::exists(part, ignored)) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(ErrorCode::kOutput, "The trace was not closed within a minute.", part.string(),
              "What was committed is in the .part file: switchyard trace recover.");
}

}  // namespace

Result<std::vector<EditCommand>> read_script_file(const std::filesystem::path& file, const ModelPlan& plan) {
  std::error_code problem;
  const auto size = std::filesystem::file_size(file, problem);
  if (problem)
    return fail(ErrorCode::kNotFound, "The script cannot be read: " + problem.message() + ".", file.string());
  if (size > kLargestScript) return fail(ErrorCode::kMalformed, "The script is larger than 16 MiB.", file.string());
  std::ifstream in(file, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  auto commands = parse_script(text, plan);
  if (commands && commands->empty()) return fail(ErrorCode::kMalformed, "The script holds no edits.", file.string());
  if (commands) return commands;
  Error error = commands.error();
  error.where = file.string() + (error.where.empty() ? "" : ": " + error.where);
  return tl::unexpected<Error>(std::move(error));
}

void RunModel::load_script(const std::filesystem::path& file) {
  if (!session_)
    return Q_EMIT failed({ErrorCode::kUsage, "No model is open.", "", "Open the model that the script is for."});
  const Session* const target = session_.get();
  jobs_.start(
      "load script", tr("Reading %1").arg(QString::fromStdString(file.filename().string())),
      [file, plan = session_->checkpoint().plan](Task&) { return read_script_file(file, plan); },
      [this, target, file](Result<std::vector<EditCommand>> commands) {
        if (session_.get() != target) return;
        if (!commands) return Q_EMIT failed(commands.error());
        if (edit(std::move(*commands), "script"))
          Q_EMIT note(tr("Loaded %1").arg(QString::fromStdString(file.filename().string())));
      });
}

void RunModel::replay(const std::filesystem::path& trace, int sequence) {
  if (!session_)
    return Q_EMIT failed({ErrorCode::kUsage, "No model is open.", "", "Open the model that the trace is of."});
  const Session* const target = session_.get();
  const QString name = QString::fromStdString(trace.filename().string());
  jobs_.start(
      "replay", tr("Reading %1").arg(name),
      [trace, sequence, plan = session_->checkpoint().plan](Task& task) { return read_replay(trace, sequence, plan, &task); },
      [this, target, name](Result<Replay> replay) {
        if (session_.get() != target) return;
        if (!replay) {
          if (replay.error().code != ErrorCode::kCancelled) Q_EMIT failed(replay.error());
          return;
        }
        if (!edit(std::vector{replay->edit}, "script")) return;
        if (replay->sampling) {
          Sampling sampling{.greedy = !replay->sampling->do_sample};
          sampling.temperature = replay->sampling->temperature;
          sampling.top_p = replay->sampling->top_p;
          sampling.top_k = replay->sampling->top_k;
          sampling.seed = replay->seed.value_or(0);
          set_sampling(sampling);
        }
        for (const std::string& line : replay->notes) Q_EMIT note(QString::fromStdString(line));
        starting_ = true;
        started_from_ = this->sequence();
        starting_prompt_ = session_->tokenizer() ? QString::fromStdString(session_->tokenizer()->decode(replay->prompt, true)) : QString();
        starting_chat_ = false;
        session_->send(Start{std::move(replay->prompt), replay->generated.size() + 1, false});
        Q_EMIT note(tr("Replaying %1; undo ends it").arg(name));
      });
}

void RunModel::save_script(const std::filesystem::path& file, Overwrite overwrite) {
  if (!data_.snapshot) return Q_EMIT failed({ErrorCode::kUsage, "There is nothing to save yet.", "", ""});
  jobs_.start(
      "", tr("Saving %1").arg(QString::fromStdString(file.filename().string())),
      [file, overwrite, text = to_json_script(script_of(*data_.snapshot))](Task&) {
        return write_file(file, text, overwrite);
      },
      [this, file](Result<void> saved) {
        if (saved)
          Q_EMIT note(tr("Saved %1").arg(QString::fromStdString(file.string())));
        else
          Q_EMIT failed(saved.error());
      });
}

void RunModel::export_model(const std::filesystem::path& folder) {
  const Recipe* recipe = data_.snapshot ? recipe_in_force(*data_.snapshot) : nullptr;
  if (!session_ || !recipe) return Q_EMIT failed({ErrorCode::kUsage, "No model is open.", "", "Open a model."});
  std::vector<EditCommand> script;
  for (Edit& edit : edits_of(*recipe, session_->checkpoint().plan)) script.push_back({std::move(edit), std::nullopt});
  jobs_.start(
      "", tr("Exporting to %1").arg(QString::fromStdString(folder.filename().string())),
      [folder, script, checkpoint = session_->checkpoint()](Task& task) -> Result<void> {
        SY_TRY(const CheckpointWriter writer, CheckpointWriter::plan(checkpoint, script));
        return writer.write(folder, &task);
      },
      [this, folder](Result<void> written) {
        if (written)
          Q_EMIT note(tr("Exported to %1").arg(QString::fromStdString(folder.string())));
        else if (written.error().code != ErrorCode::kCancelled)
          Q_EMIT failed(written.error());
      });
}

void RunModel::record_to(const std::filesystem::path& path, bool overwrite) {
  if (!session_ || recording()) return;
  recording_path_ = path;
  const Session* const target = session_.get();
  const CaptureLevel level =
      std::max(data_.snapshot ? data_.snapshot->capture : CaptureLevel::kLogits, CaptureLevel::kIds);
  const uint8_t taps = data_.snapshot ? data_.snapshot->taps : 0;
  preparing_recording_ = jobs_.start(
      "record", tr("Preparing the trace"),
      [checkpoint = session_->checkpoint(), path, overwrite, level,
       taps, routers = record_routers_](Task& task) -> Result<std::shared_ptr<TraceRecorder>> {
        SY_TRY(TraceHeader header, make_trace_header(checkpoint, level, &task));
        header.taps = taps;
        if (routers) SY_CHECK(add_router_weights(header, checkpoint, &task));
        RecorderOptions options;
        options.overwrite = overwrite;
        return TraceRecorder::create(path, header, options);
      },
      [this, target](Result<std::shared_ptr<TraceRecorder>> recorder) {
        if (session_.get() != target) return;
        preparing_recording_ = 0;
        if (recorder) {
          recorder_ = std::move(*recorder);
          session_->record_to(recorder_);
          if (journal_) journal_->recording_to(recording_path_);
        } else if (recorder.error().code != ErrorCode::kCancelled) {
          Q_EMIT failed(recorder.error());
        }
        Q_EMIT recording_changed();
      });
  Q_EMIT recording_changed();
}

// A recipe that makes more decisions a layer took the recording to a file of its own.
void RunModel::follow_recording() {
  if (!recorder_ || recorder_->path() == recording_path_) return;
  Q_EMIT note(tr("Trace saved: %1. The recording goes on in %2, which has more rows.")
                  .arg(QString::fromStdString(recording_path_.string()),
                       QString::fromStdString(recorder_->path().filename().string())));
  recording_path_ = recorder_->path();
  if (journal_) journal_->recording_to(recording_path_);
  Q_EMIT recording_changed();
}

void RunModel::stop_recording() {
  if (preparing_recording_) return jobs_.cancel(preparing_recording_);
  if (!session_ || !recorder_) return;
  follow_recording();
  session_->record_to(nullptr);
  recorder_.reset();
  if (journal_) journal_->recording_to({});
  jobs_.start(
      "", tr("Closing the trace"), [path = recording_path_](Task& task) { return wait_for_trace(path, task); },
      [this, path = recording_path_](Result<void> closed) {
        if (closed)
          Q_EMIT note(tr("Trace saved: %1").arg(QString::fromStdString(path.string())));
        else if (closed.error().code != ErrorCode::kCancelled)
          Q_EMIT failed(closed.error());
      });
  Q_EMIT recording_changed();
}

}  // namespace switchyard

// Stages of the screenshot run, looked at ten times a second. GUI thread.
#include "app/gui/behaviors/screenshot_run.h"

#include <cstdio>
#include <fstream>
#include <iterator>

#include <QApplication>
#include <QPixmap>

#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/main_window.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

constexpr int kSettleMs = 700;  // every view repaints at 30 Hz; this is twenty times that

Result<QString> read_prompt(const QString& named) {
  std::string file = named.toStdString();
  if (file.empty()) {
    SY_TRY(const auto assets, find_assets());
    file = (assets / "prompts" / "mixed.txt").string();
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) return fail(ErrorCode::kNotFound, "The prompt file cannot be read.", file);
  return QString::fromStdString(std::string((std::istreambuf_iterator<char>(in)), {}));
}

}  // namespace

ScreenshotRun::ScreenshotRun(MainWindow& window) : QObject(&window), window_(window) {
  connect(&window_.log(), &Log::failed, this, &ScreenshotRun::stop_with);
  connect(&tick_, &QTimer::timeout, this, &ScreenshotRun::look);
  tick_.start(100);
}

void ScreenshotRun::look() {
  RunModel& model = window_.model();
  switch (stage_) {
    case kOpening:
      if (!model.opening() && !model.is_empty()) begin();
      break;
    case kRecording:
      if (model.recorded_tokens() > 0 || (model.snapshot() && model.snapshot()->recording)) start();
      break;
    case kGenerating:
      if (model.state() == RunState::kFinished && !model.running()) {
        tell_frame_times();
        pin();
      }
      break;
    case kPainting:
      if (painting_.elapsed() > kSettleMs) grab();
      break;
    case kClosing:
      break;
  }
}

void ScreenshotRun::begin() {
  if (window_.model().has_trace()) return pin();
  const auto prompt = read_prompt(window_.options().prompt_file);
  if (!prompt) return stop_with(prompt.error());
  window_.generation().set_prompt(*prompt);
  window_.generation().set_max_new_tokens(window_.options().after_tokens);
  if (window_.options().trace.isEmpty()) return start();
  stage_ = kRecording;
  window_.model().record_to(window_.options().trace.toStdString(), false);
}

void ScreenshotRun::start() {
  stage_ = kGenerating;
  window_.frame_times().clear();
  window_.start_run();
}

void ScreenshotRun::tell_frame_times() {
  const FrameTimes& times = window_.frame_times();
  std::fprintf(stderr, "frames: p50 %.1f p99 %.1f ms over %zu, whole window %d x %d; %.0f tokens/s, %s\n",
               times.percentile(0.5), times.percentile(0.99), times.count(), window_.width(), window_.height(),
               window_.model().snapshot()->mean_decode_tokens_per_s,
               window_.model().snapshot()->backend.detail.c_str());
}

void ScreenshotRun::pin() {
  RunModel& model = window_.model();
  model.drain();
  if (model.data().tokens() > 0) model.set_cursor(model.data().tokens() - 1);
  const RoutingFrame* frame = model.data().shown(model.cursor());
  if (frame && frame->header().capture != CaptureLevel::kOff) {
    Selection selection = model.selection();
    selection.expert = frame->ids(selection.moe_layer)[0];
    if (*selection.expert != kNoExpert) model.select(selection);
  }
  stage_ = kPainting;
  painting_.start();
}

void ScreenshotRun::grab() {
  stage_ = kClosing;
  tick_.stop();
  const QPixmap picture = window_.grab();
  if (!picture.save(window_.options().screenshot, "PNG"))
    return stop_with({ErrorCode::kOutput, "The screenshot cannot be written.",
                      window_.options().screenshot.toStdString(), "Is the folder there and writable?"});
  QApplication::exit(0);
}

void ScreenshotRun::stop_with(const Error& error) {
  tick_.stop();
  stage_ = kClosing;
  std::fputs(("switchyard-gui: " + error.message() + "\n").c_str(), stderr);
  QApplication::exit(int(error.code));
}

}  // namespace switchyard

// `--screenshot`: generates in the real window, pins the last token, waits until every picture shows it, saves
// the window as PNG and quits with the exit code of what happened. GUI thread.
#pragma once

#include <QElapsedTimer>
#include <QObject>
#include <QTimer>

#include "engine/base/result.h"

namespace switchyard {

class MainWindow;

class ScreenshotRun : public QObject {
  Q_OBJECT
 public:
  explicit ScreenshotRun(MainWindow& window);

 private:
  enum Stage { kOpening, kRecording, kGenerating, kPainting, kClosing };
  void look();
  void begin();
  void start();
  void tell_frame_times();
  void pin();
  void grab();
  void stop_with(const Error& error);

  MainWindow& window_;
  Stage stage_ = kOpening;
  QTimer tick_;
  QElapsedTimer painting_;
};

}  // namespace switchyard

// The Logit lens dock: what every layer would predict for the text so far, layer by token. GUI thread; the work is a job.
#pragma once

#include <memory>

#include <QWidget>

#include "app/gui/docks/text_probe.h"
#include "app/session/logit_lens.h"

class QComboBox;
class QLabel;
class QPushButton;

namespace switchyard {

class ResultPicture;

class LensPanel : public QWidget {
  Q_OBJECT
 public:
  LensPanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  void compute();
  QString why_not() const;  // empty: it can be computed now
  std::shared_ptr<const LogitLens> lens() const { return probe_.reading(); }
  TableData table() const;
  const ResultPicture& picture() const { return *picture_; }

 Q_SIGNALS:
  void lens_changed();

 private:
  void refresh();
  void show_picture();

  RunModel& model_;
  TextProbe<LogitLens> probe_;
  QPushButton* compute_;
  QComboBox* quantity_;
  QLabel* message_;
  ResultPicture* picture_;
};

}  // namespace switchyard

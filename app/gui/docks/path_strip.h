// The layer path as a strip: one cell a layer that skips it, runs it or repeats it. Every change is one edit of the
// whole path; it holds from the next prefill on. Keys: arrows move, space goes on to the next state, S, R and 2 to 4
// set one. GUI thread.
#pragma once

#include <cstdint>
#include <vector>

#include <QWidget>

namespace switchyard {

class RunModel;

class PathStrip : public QWidget {
  Q_OBJECT
 public:
  explicit PathStrip(RunModel& model, QWidget* parent = nullptr);

  int layers() const;
  int passes(int layer) const;  // of the next sequence, edits on their way counted
  int current() const { return current_; }
  bool waits() const;  // the sequence that runs has another path
  QString note() const;
  void set_passes(int layer, int passes);  // sends an edit
  void set_current(int layer);

  QSize sizeHint() const override;
  QSize minimumSizeHint() const override;
  bool hasHeightForWidth() const override { return true; }
  int heightForWidth(int width) const override;

 protected:
  void paintEvent(QPaintEvent*) override;
  void mousePressEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  bool event(QEvent* event) override;  // tooltip of a cell

 private:
  void refresh();
  int columns(int width) const;
  QRectF cell(int layer) const;
  int layer_at(QPointF at) const;  // -1: none
  QString sentence(int layer) const;

  RunModel& model_;
  int current_ = 0;
};

}  // namespace switchyard

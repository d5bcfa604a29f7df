// The row under the menus: model and backend chips, transport, undo, capture and record chips, search. GUI thread.
#pragma once

#include <QPushButton>
#include <QToolButton>
#include <QWidget>

namespace switchyard {

class ActionTable;
class RunModel;

// A button with a quiet word before its value: "backend cpu · AVX-512".
class Chip : public QToolButton {
  Q_OBJECT
 public:
  explicit Chip(const QString& label, QWidget* parent = nullptr);
  void set_value(const QString& strong, const QString& quiet = {});  // "demo", "qwen3_moe · 8 layers"
  void set_dot(QColor dot);                                          // invalid: none
  void set_room(int width);                                          // most pixels it may take
  QSize sizeHint() const override;
  QSize minimumSizeHint() const override { return sizeHint(); }

 protected:
  void paintEvent(QPaintEvent*) override;

 private:
  QString label_, strong_, quiet_;
  QColor dot_;
  int room_ = 10'000;
};

class ToolRow : public QWidget {
  Q_OBJECT
 public:
  ToolRow(RunModel& model, ActionTable& actions, QWidget* parent = nullptr);
  void refresh();  // after data, model, recording or theme changes

 protected:
  void resizeEvent(QResizeEvent*) override;

 private:
  QPushButton* button(const QString& action_id, const QString& text);
  void fit();

  RunModel& model_;
  ActionTable& actions_;
  Chip *model_chip_, *backend_chip_, *capture_chip_, *record_chip_;
  QPushButton *run_, *step_, *stop_, *undo_, *redo_, *search_;
  bool icons_only_ = false;
};

}  // namespace switchyard

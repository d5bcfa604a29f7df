// The report builder: sections on the left, what they will look like on the right, exported as HTML, PDF, LaTeX or
// Markdown. Every change makes the report again, by a job. GUI thread.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include <QTimer>
#include <QWidget>

#include "app/session/jobs.h"
#include "engine/report/request.h"

class QComboBox;
class QLineEdit;
class QListWidget;
class QPlainTextEdit;
class QPushButton;
class QTextBrowser;

namespace switchyard {

class ElidedLabel;

class ReportPanel : public QWidget {
  Q_OBJECT
 public:
  // subject: the trace that analyses read; empty: none, then only notes and pictures of the moment can be shown.
  ReportPanel(Jobs& jobs, std::function<std::filesystem::path()> subject, QWidget* parent = nullptr);

  void add(ReportItem item);               // at the end, chosen
  void use_template(const QString& name);  // in the place of what is there
  // What a workspace keeps. The trace is not part of it.
  const ReportRequest& request() const { return request_; }
  void set_request(ReportRequest request);
  void set_title(const QString& title);
  void move_item(int from, int to);
  void remove_item(int row);
  void set_note(int row, const QString& markdown);
  void set_other(const QString& path);

  const std::optional<Report>& report() const { return report_; }  // of the last finished preview
  QTextBrowser& preview() const { return *preview_; }
  QListWidget& list() const { return *list_; }
  // Makes the report and writes it, by a job; exported() or failed() follow.
  void export_to(const QString& file);
  void show_again();  // in another theme or width

 Q_SIGNALS:
  void failed(const switchyard::Error& error);
  void exported(const QString& file);
  void shown();       // the preview shows the request as it is
  void view_asked();  // "The focused picture"

 protected:
  void showEvent(QShowEvent* event) override;
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  QWidget* build_left();
  QWidget* build_right();
  void fill_list();
  void show_item();  // heading and note of the chosen one
  void changed();
  void compose();
  void show_report();
  void fill_add_menu();
  void ask_to_export();
  ReportRequest whole() const;  // with trace and title
  int row() const;

  Jobs& jobs_;
  const std::function<std::filesystem::path()> subject_;
  ReportRequest request_;
  std::optional<Report> report_;
  QTimer wait_, fit_;
  bool stale_ = true;  // what is shown is not what is asked for
  QLineEdit *title_, *heading_;
  QComboBox* templates_;
  QListWidget* list_;
  QPlainTextEdit* note_;
  QPushButton *add_, *up_, *down_, *remove_, *export_, *other_;
  ElidedLabel *state_, *second_;
  QTextBrowser* preview_;
};

}  // namespace switchyard

// Sections, notes, preview, export. GUI thread; the report itself is made by jobs.
#include "app/gui/docks/report_panel.h"

#include <algorithm>

#include <QAction>
#include <QComboBox>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenu>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QScrollBar>
#include <QSignalBlocker>
#include <QTextBrowser>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/panel_parts.h"
#include "app/gui/report_preview.h"
#include "app/gui/style.h"
#include "engine/analysis/analysis.h"
#include "engine/report/given_sections.h"
#include "engine/report/report_files.h"
#include "engine/studies/study.h"

namespace switchyard {
namespace {

constexpr int kWaitMs = 400;  // after the last key
constexpr int kFitMs = 150;   // after the last change of its width
constexpr int kThreads = 1;   // the engine has the others

QString title_of(const ReportItem& item) {
  const std::string title = !item.heading.empty()                         ? item.heading
                            : item.source == "note" && !item.note.empty() ? item.note.substr(0, item.note.find('\n'))
                                                                          : source_title(item.source);
  return QString::fromStdString(shown_text(title)) + (item.other ? QObject::tr(" (second trace)") : QString());
}

QString counted(size_t count, const char* thing) {  // "1 figure", "2 figures"
  return QString("%1 %2%3").arg(count).arg(thing, count == 1 ? "" : "s");
}

QPushButton* named_button(const QString& text, const char* name, const QString& tip) {
  auto* button = new QPushButton(text);
  button->setObjectName(name);
  button->setToolTip(tip);
  return button;
}

}  // namespace

ReportPanel::ReportPanel(Jobs& jobs, std::function<std::filesystem::path()> subject, QWidget* parent)
    : QWidget(parent), jobs_(jobs), subject_(std::move(subject)) {
  QWidget* left = build_left();
  put_side_by_side(*this, left, 22, build_right(), 56);
  wait_.setSingleShot(true);
  connect(&wait_, &QTimer::timeout, this, &ReportPanel::compose);
  fit_.setSingleShot(true);
  connect(&fit_, &QTimer::timeout, this, &ReportPanel::show_again);
  connect(title_, &QLineEdit::textEdited, this, [this](const QString& text) {
    request_.title = text.toStdString();
    changed();
  });
  connect(templates_, &QComboBox::activated, this, [this](int index) {
    if (index > 0) use_template(templates_->itemData(index).toString());
    templates_->setCurrentIndex(0);
  });
  connect(list_, &QListWidget::currentRowChanged, this, &ReportPanel::show_item);
  connect(list_->model(), &QAbstractItemModel::rowsMoved, this,
          [this](const QModelIndex&, int from, int, const QModelIndex&, int to) {
            const auto at = request_.items.begin();
            if (to > from)
              std::rotate(at + from, at + from + 1, at + to);
            else
              std::rotate(at + to, at + from, at + from + 1);
            QMetaObject::invokeMethod(this, &ReportPanel::show_item,
                                      Qt::QueuedConnection);  // once the list has moved it
            changed();
          });
  connect(heading_, &QLineEdit::textEdited, this, [this](const QString& text) {
    if (row() < 0) return;
    request_.items[size_t(row())].heading = text.toStdString();
    list_->item(row())->setText(title_of(request_.items[size_t(row())]));
    changed();
  });
  connect(note_, &QPlainTextEdit::textChanged, this, [this] {
    if (row() < 0) return;
    request_.items[size_t(row())].note = note_->toPlainText().toStdString();
    list_->item(row())->setText(title_of(request_.items[size_t(row())]));
    changed();
  });
  connect(up_, &QPushButton::clicked, this, [this] { move_item(row(), row() - 1); });
  connect(down_, &QPushButton::clicked, this, [this] { move_item(row(), row() + 1); });
  connect(remove_, &QPushButton::clicked, this, [this] { remove_item(row()); });
  connect(export_, &QPushButton::clicked, this, &ReportPanel::ask_to_export);
  connect(other_, &QPushButton::clicked, this, [this] {
    const QString file =
        QFileDialog::getOpenFileName(this, tr("A second trace of the same tokens"), {}, tr("Traces (*.moetrace.h5)"));
    if (!file.isEmpty()) set_other(file);
  });
  show_item();
}

QWidget* ReportPanel::build_left() {
  title_ = new QLineEdit;
  title_->setObjectName("report.title");
  title_->setPlaceholderText(tr("Title (from the template and the trace)"));
  title_->setAccessibleName(tr("Title of the report"));
  templates_ = new QComboBox;
  templates_->setObjectName("report.template");
  templates_->setAccessibleName(tr("Template"));
  templates_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  templates_->setMinimumContentsLength(12);
  templates_->addItem(tr("Begin with a template…"));
  for (const ReportTemplate& one : report_templates()) {
    templates_->addItem(QString::fromUtf8(one.title), QString::fromUtf8(one.name));
    templates_->setItemData(templates_->count() - 1, QString::fromUtf8(one.about), Qt::ToolTipRole);
  }
  list_ = new QListWidget;
  list_->setObjectName("report.items");
  list_->setAccessibleName(tr("Sections of the report"));
  list_->setDragDropMode(QAbstractItemView::InternalMove);
  list_->setMinimumHeight(QFontMetrics(word_font()).lineSpacing() * 3);
  add_ = named_button(tr("Add"), "report.add", tr("Another section"));
  add_->setMenu(new QMenu(add_));
  connect(add_->menu(), &QMenu::aboutToShow, this, &ReportPanel::fill_add_menu);
  up_ = named_button(tr("Up"), "report.up", tr("Moves the section up"));
  down_ = named_button(tr("Down"), "report.down", tr("Moves the section down"));
  remove_ = named_button(tr("Remove"), "report.remove", tr("Takes the section out"));
  heading_ = new QLineEdit;
  heading_->setObjectName("report.heading");
  heading_->setAccessibleName(tr("Heading of the section"));
  note_ = new QPlainTextEdit;
  note_->setObjectName("report.note");
  note_->setAccessibleName(tr("Note of the section, in Markdown"));
  note_->setPlaceholderText(tr("A note, in Markdown"));
  note_->setTabChangesFocus(true);
  note_->setMinimumHeight(QFontMetrics(word_font()).lineSpacing() * 3);
  other_ =
      named_button(tr("Second trace…"), "report.other", tr("For a comparison: a trace of the same tokens, of an edit"));
  second_ = new ElidedLabel;
  second_->setProperty("kind", "faint");
  export_ = named_button(tr("Export…"), "report.export", tr("HTML, PDF, LaTeX or Markdown, by the name's ending"));
  auto* body = new QWidget;
  auto* side = new QVBoxLayout(body);
  side->setContentsMargins(0, 0, 0, 0);
  side->addWidget(title_);
  side->addWidget(templates_);
  side->addWidget(list_, 3);
  auto* buttons = new QHBoxLayout;
  for (QPushButton* button : {add_, up_, down_, remove_}) buttons->addWidget(button);
  side->addLayout(buttons);
  side->addWidget(heading_);
  side->addWidget(note_, 1);
  QScrollArea* scroll = scrolled(body);
  scroll->setMinimumSize(body->minimumSizeHint().width() + scroll->verticalScrollBar()->sizeHint().width(),
                         QFontMetrics(word_font()).lineSpacing() * 3);
  auto* foot = new QHBoxLayout;
  foot->addWidget(other_);
  foot->addWidget(second_, 1);
  foot->addWidget(export_);
  auto* left = new QWidget;
  auto* column = new QVBoxLayout(left);
  column->setContentsMargins(0, 0, 4, 0);
  column->addWidget(scroll, 1);
  column->addLayout(foot);
  return left;
}

QWidget* ReportPanel::build_right() {
  state_ = new ElidedLabel;
  state_->setObjectName("report.state");
  state_->setProperty("kind", "muted");
  preview_ = new QTextBrowser;
  preview_->setObjectName("report.preview");
  preview_->setAccessibleName(tr("Preview of the report"));
  preview_->setOpenLinks(false);
  preview_->setMinimumHeight(QFontMetrics(word_font()).lineSpacing() * 3);
  preview_->installEventFilter(this);
  auto* right = new QWidget;
  auto* column = new QVBoxLayout(right);
  column->setContentsMargins(4, 0, 0, 0);
  column->addWidget(state_);
  column->addWidget(preview_, 1);
  return right;
}

int ReportPanel::row() const {
  return list_->currentRow();
}

void ReportPanel::fill_add_menu() {
  QMenu* menu = add_->menu();
  menu->clear();
  menu->addAction(tr("The focused picture, as it is"), this, &ReportPanel::view_asked);
  const auto entry = [this](QMenu* to, const QString& text, const std::string& source) {
    to->addAction(text, this, [this, source] {
      ReportItem item;
      item.source = source;
      if (source == "note") item.heading = tr("Note").toStdString();
      add(std::move(item));
    });
  };
  for (const char* source : {"note", "facts", "text", "edits"})
    entry(menu, QString::fromStdString(source_title(source)), source);
  menu->addSeparator();
  QMenu* of_analyses = menu->addMenu(tr("Analysis"));
  for (const AnalysisInfo& info : analyses()) entry(of_analyses, QString::fromUtf8(info.title), info.name);
  QMenu* of_studies = menu->addMenu(tr("Simulation or placement"));
  for (const StudyInfo& info : studies())
    if (info.kind != StudyKind::kPlacement &&
        std::none_of(info.options.begin(), info.options.end(), [](const StudyOption& o) { return o.required; }))
      entry(of_studies, QString::fromUtf8(info.title), command_of(info));
  if (given_sections().empty()) return;
  QMenu* of_plugins = menu->addMenu(tr("Section of a plugin"));
  for (const GivenSection& one : given_sections())
    entry(of_plugins, tr("%1 (%2)").arg(QString::fromStdString(one.title), QString::fromStdString(one.maker)),
          one.name);
}

void ReportPanel::add(ReportItem item) {
  request_.items.push_back(std::move(item));
  fill_list();
  list_->setCurrentRow(list_->count() - 1);
  changed();
}

void ReportPanel::use_template(const QString& name) {
  const ReportTemplate* shape = find_template(name.toStdString());
  if (shape == nullptr) return;
  request_.template_name = shape->name;
  request_.items = shape->items({});
  fill_list();
  list_->setCurrentRow(0);
  changed();
}

void ReportPanel::set_request(ReportRequest request) {
  request_ = std::move(request);
  title_->setText(QString::fromStdString(request_.title));
  second_->set_full_text(QString::fromStdString(shown_text(std::filesystem::path(request_.other).filename().string())));
  fill_list();
  if (!request_.items.empty()) list_->setCurrentRow(0);
  changed();
}

void ReportPanel::set_title(const QString& title) {
  title_->setText(title);
  request_.title = title.toStdString();
  changed();
}

void ReportPanel::set_other(const QString& path) {
  request_.other = path.toStdString();
  second_->set_full_text(QString::fromStdString(shown_text(std::filesystem::path(request_.other).filename().string())));
  changed();
}

void ReportPanel::move_item(int from, int to) {
  const int count = int(request_.items.size());
  if (from < 0 || to < 0 || from >= count || to >= count || from == to) return;
  ReportItem item = std::move(request_.items[size_t(from)]);
  request_.items.erase(request_.items.begin() + from);
  request_.items.insert(request_.items.begin() + to, std::move(item));
  fill_list();
  list_->setCurrentRow(to);
  changed();
}

void ReportPanel::remove_item(int row) {
  if (row < 0 || size_t(row) >= request_.items.size()) return;
  request_.items.erase(request_.items.begin() + row);
  fill_list();
  list_->setCurrentRow(std::min(row, list_->count() - 1));
  changed();
}

void ReportPanel::set_note(int row, const QString& markdown) {
  list_->setCurrentRow(row);
  note_->setPlainText(markdown);
}

void ReportPanel::fill_list() {
  const QSignalBlocker quiet(list_);
  list_->clear();
  for (const ReportItem& item : request_.items) list_->addItem(title_of(item));
  show_item();
}

void ReportPanel::show_item() {
  const QSignalBlocker quiet_note(note_);
  const bool some = row() >= 0 && size_t(row()) < request_.items.size();
  const ReportItem* item = some ? &request_.items[size_t(row())] : nullptr;
  heading_->setText(item ? QString::fromStdString(item->heading) : QString());
  heading_->setPlaceholderText(item ? QString::fromStdString(source_title(item->source)) : tr("Heading"));
  note_->setPlainText(item ? QString::fromStdString(item->note) : QString());
  for (QWidget* widget :
       {static_cast<QWidget*>(heading_), static_cast<QWidget*>(note_), static_cast<QWidget*>(remove_)})
    widget->setEnabled(some);
  up_->setEnabled(row() > 0);
  down_->setEnabled(some && row() + 1 < list_->count());
  export_->setEnabled(!request_.items.empty());
}

void ReportPanel::changed() {
  stale_ = true;
  export_->setEnabled(!request_.items.empty());
  if (isVisible()) wait_.start(kWaitMs);
}

ReportRequest ReportPanel::whole() const {
  ReportRequest out = request_;
  out.trace = subject_().string();
  if (out.other.empty())
    std::erase_if(out.items, [](const ReportItem& item) { return item.other || item.source == "trace compare"; });
  if (out.trace.empty())
    std::erase_if(out.items, [](const ReportItem& item) { return item.source != "note" && item.source != "view"; });
  if (out.trace.empty()) out.other.clear();
  return out;
}

void ReportPanel::compose() {
  const ReportRequest request = whole();
  if (request.items.empty()) {
    report_.reset();
    stale_ = false;
    show_report();
    return;
  }
  state_->set_full_text(tr("Making the report…"));
  const size_t left_out = request_.items.size() - request.items.size();
  jobs_.start(
      "report", tr("Making the report"),
      [request](Task& task) {
        return compose_report(request, {{}, kThreads}, &task);
      },
      [this, left_out](Result<Report> made) {
        if (!made) {
          state_->set_full_text(QString::fromStdString(made.error().message()));
          if (made.error().code != ErrorCode::kCancelled) Q_EMIT failed(made.error());
          return;
        }
        report_ = std::move(*made);
        if (left_out > 0)
          report_->notes.push_back(
              (counted(left_out, "section") + tr(" for want of a trace, or of a second one")).toStdString());
        stale_ = false;
        show_report();
      });
}

void ReportPanel::show_report() {
  const int at = preview_->verticalScrollBar()->value();
  if (!report_) {
    state_->set_full_text({});
    preview_->setPlainText(request_.items.empty()
                               ? tr("Begin with a template, or add the picture that you look at (Ctrl+Shift+E).")
                               : tr("These sections need a trace: open one, or record the run."));
    Q_EMIT shown();
    return;
  }
  size_t tables = 0, figures = 0;
  for (const ReportSection& section : report_->sections)
    for (const ReportBlock& block : section.blocks) {
      tables += std::holds_alternative<ReportTable>(block.content);
      figures += std::holds_alternative<ChartSpec>(block.content);
    }
  QString state = counted(report_->sections.size(), "section") + ", " + counted(figures, "figure") + ", " +
                  counted(tables, "table");
  if (!report_->notes.empty())
    state += tr("; not in it: %1").arg(QString::fromStdString(shown_text(report_->notes[0])));
  state_->set_full_text(state);
  show_preview(*preview_, *report_);
  preview_->verticalScrollBar()->setValue(at);
  Q_EMIT shown();
}

void ReportPanel::show_again() {
  if (report_) show_report();
}

// Pictures are as wide as the preview.
bool ReportPanel::eventFilter(QObject* watched, QEvent* event) {
  if (watched == preview_ && event->type() == QEvent::Resize && report_) fit_.start(kFitMs);
  return QWidget::eventFilter(watched, event);
}

void ReportPanel::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  if (stale_) compose();
}

void ReportPanel::ask_to_export() {
  QString file = QFileDialog::getSaveFileName(this, tr("Export the report"), "report.html",
                                              tr("HTML (*.html);;PDF (*.pdf);;LaTeX (*.tex);;Markdown (*.md)"));
  if (!file.isEmpty()) export_to(file);
}

void ReportPanel::export_to(const QString& file) {
  const ReportRequest request = whole();
  const ReportFiles files{file.toStdString(), {}, true, false};
  jobs_.start(
      "report.export", tr("Exporting the report"),
      [request, files](Task& task) -> Result<std::vector<WrittenFile>> {
        SY_CHECK(check_target(files));
        const std::string words[] = {"switchyard", "report", "--rebuild", files.target.filename().string()};
        SY_TRY(const Report report, compose_report(request, {shell_line(words), kThreads}, &task));
        return write_report(report, files);
      },
      [this, file](Result<std::vector<WrittenFile>> written) {
        if (written)
          Q_EMIT exported(file);
        else if (written.error().code != ErrorCode::kCancelled)
          Q_EMIT failed(written.error());
      });
}

}  // namespace switchyard

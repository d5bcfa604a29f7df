// Journal of this run, journals of dead ones. GUI thread.
#include "app/gui/behaviors/crash_recovery.h"

#include <QCheckBox>
#include <QDialogButtonBox>
#include <QFileInfo>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/gui/docks/generation_panel.h"
#include "app/gui/main_window.h"
#include "app/session/edits_in_force.h"
#include "engine/trace/trace.h"

namespace switchyard {
namespace {

std::filesystem::path part_of(const std::filesystem::path& trace) {
  return trace.string() + ".part";
}

bool has_part(const JournalContents& left) {
  return !left.recording.empty() && QFileInfo::exists(QString::fromStdString(part_of(left.recording).string()));
}

}  // namespace

RecoveryDialog::RecoveryDialog(const JournalContents& left, QWidget* parent) : QDialog(parent) {
  setObjectName("recovery");
  setWindowTitle(tr("The last run did not end by itself"));
  setMinimumWidth(520);
  auto* column = new QVBoxLayout(this);
  column->setSpacing(10);
  const auto line = [&](const QString& text, const char* kind) {
    auto* label = new QLabel(text);
    label->setTextFormat(Qt::PlainText);
    label->setWordWrap(true);
    label->setProperty("kind", kind);
    column->addWidget(label);
  };
  line(tr("The last run did not end by itself"), "title");
  line(tr("Model: %1").arg(QString::fromStdString(left.model)), "muted");
  if (!left.history.empty()) {
    edits_ = new QCheckBox(
        tr("Restore the prompt and the edits (%1, of them in force %2)").arg(left.history.size()).arg(left.cursor));
    edits_->setChecked(true);
    column->addWidget(edits_);
  }
  if (has_part(left)) {
    trace_ = new QCheckBox(tr("Recover the trace %1").arg(QString::fromStdString(left.recording.filename().string())));
    trace_->setToolTip(tr("Copies the committed rows to a new file; the .part stays until you remove it."));
    trace_->setChecked(true);
    column->addWidget(trace_);
  }
  if (left.damaged_lines > 0) line(tr("The end of the journal was cut; what follows the cut is lost."), "edit");
  auto* buttons = new QDialogButtonBox;
  QPushButton* restore = buttons->addButton(tr("Restore"), QDialogButtonBox::AcceptRole);
  restore->setObjectName("recovery.restore");
  restore->setProperty("kind", "primary");
  restore->setDefault(true);
  buttons->addButton(tr("Discard"), QDialogButtonBox::RejectRole)->setObjectName("recovery.discard");
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  column->addWidget(buttons);
}

bool RecoveryDialog::restore_edits() const {
  return edits_ && edits_->isChecked();
}
bool RecoveryDialog::recover_trace() const {
  return trace_ && trace_->isChecked();
}

CrashRecovery::CrashRecovery(MainWindow& window) : QObject(&window), window_(window) {
  orphans_ = orphaned_journals(state_folder());
  auto journal = Journal::create(state_folder());
  if (journal)
    journal_ = std::move(*journal);
  else
    window_.log().add(journal.error());
  window_.model().set_journal(&journal_);
}

CrashRecovery::~CrashRecovery() {
  window_.model().set_journal(nullptr);
  journal_.finish();
}

bool CrashRecovery::offer() {
  while (!orphans_.empty()) {
    const auto file = orphans_.back();
    orphans_.pop_back();
    const auto left = read_journal(file);
    std::error_code ignored;
    if (!left || (left->history.empty() && !has_part(*left))) {
      std::filesystem::remove(file, ignored);
      continue;
    }
    dialog_ = new RecoveryDialog(*left, &window_);
    dialog_->setAttribute(Qt::WA_DeleteOnClose);
    dialog_->setModal(true);
    connect(dialog_, &QDialog::finished, this, [this, left = *left, dialog = dialog_](int answer) {
      dialog_ = nullptr;
      if (answer == QDialog::Accepted && dialog->restore_edits()) restore(left);
      if (answer == QDialog::Accepted && dialog->recover_trace()) recover(left);
      std::error_code ignored;
      std::filesystem::remove(left.file, ignored);
    });
    dialog_->open();
    return true;
  }
  return false;
}

void CrashRecovery::restore(const JournalContents& left) {
  window_.generation().set_prompt(QString::fromStdString(left.prompt));
  RunModel& model = window_.model();
  auto* once = new QObject(this);
  connect(&model, &RunModel::model_changed, once, [this, once, left, &model] {
    if (model.opening()) return;
    once->deleteLater();
    disconnect(&model, nullptr, once, nullptr);
    if (!model.has_session()) return;
    window_.generation().set_prompt(QString::fromStdString(left.prompt));
    for (const JournalEntry& entry : left.history) {
      const auto edits = parse_script(entry.script_json, model.checkpoint()->plan);
      if (!edits) return window_.log().add(edits.error());
      if (!model.edit(*edits, entry.author)) return;
    }
    model.undo_to(left.cursor);
    window_.log().add(LogEntry::kNote, tr("Edits of the last run restored: %1.").arg(left.history.size()));
  });
  window_.open_path(QString::fromStdString(left.model));
}

void CrashRecovery::recover(const JournalContents& left) {
  std::string name = left.recording.filename().string();
  const std::string ending = ".moetrace.h5";
  if (name.ends_with(ending)) name.resize(name.size() - ending.size());
  const std::filesystem::path target = left.recording.parent_path() / (name + ".recovered" + ending);
  window_.jobs().start(
      "recover", tr("Recovering %1").arg(QString::fromStdString(left.recording.filename().string())),
      [source = part_of(left.recording), target](Task& task) {
        return switchyard::recover_trace(source, target, true, &task);
      },
      [this, target](Result<VerifyReport> report) {
        if (!report) return window_.log().add(report.error());
        window_.log().add(
            LogEntry::kNote,
            tr("Recovered %1 tokens to %2").arg(report->info.tokens).arg(QString::fromStdString(target.string())));
      });
}

}  // namespace switchyard

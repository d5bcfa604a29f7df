#include "app/gui/docks/plugin_panel.h"

#include <QCheckBox>
#include <QComboBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMessageBox>
#include <QPushButton>
#include <QScrollArea>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "app/gui/style.h"

namespace switchyard {
namespace {

QLabel* plain(const char* kind) {
  auto* label = new QLabel;
  label->setTextFormat(Qt::PlainText);
  label->setWordWrap(true);
  label->setTextInteractionFlags(Qt::TextSelectableByMouse);
  label->setProperty("kind", kind);
  return label;
}

QString text(std::string_view words) {
  return QString::fromUtf8(words.data(), qsizetype(words.size()));
}

QString contributions_of(const Manifest& manifest) {
  QStringList lines;
  for (const Contribution& one : manifest.contributions)
    lines << QStringLiteral("  %1 %2: %3").arg(text(words(one.kind)), text(one.id), text(one.title));
  return lines.join('\n');
}

QString contract_text(const ContractRange& range) {
  return range.least == 0            ? QObject::tr("none")
         : range.least == range.most ? QString::number(range.least)
                                     : QStringLiteral("%1–%2").arg(range.least).arg(range.most);
}

}  // namespace

PluginPanel::PluginPanel(PluginHost& host, QWidget* parent) : QWidget(parent), host_(host) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(6);
  list_ = new QTreeWidget;
  list_->setObjectName("plugins.list");
  list_->setAccessibleName(tr("Plugins"));
  list_->setHeaderLabels({tr("plugin"), tr("version"), tr("state")});
  list_->setRootIsDecorated(false);
  list_->header()->setSectionResizeMode(0, QHeaderView::Stretch);
  list_->header()->setStretchLastSection(false);
  for (int i : {1, 2}) list_->header()->setSectionResizeMode(i, QHeaderView::ResizeToContents);
  for (const auto& plugin : host_.plugins()) {
    auto* item = new QTreeWidgetItem(list_, {text(plugin->manifest().title), text(plugin->manifest().version), {}});
    item->setData(0, Qt::UserRole, text(plugin->id()));
  }
  column->addWidget(list_, 2);

  message_ = plain("error");
  message_->setObjectName("plugins.message");
  column->addWidget(message_);
  trust_ = new QPushButton(tr("Trust…"));
  trust_->setObjectName("plugins.trust");
  untrust_ = new QPushButton(tr("Take trust back"));
  untrust_->setObjectName("plugins.untrust");
  toggle_ = new QPushButton;
  toggle_->setObjectName("plugins.toggle");
  auto* buttons = new QHBoxLayout;
  for (QPushButton* one : {trust_, untrust_, toggle_}) buttons->addWidget(one);
  buttons->addStretch(1);
  column->addLayout(buttons);

  details_ = plain("muted");
  details_->setObjectName("plugins.details");
  form_ = new QWidget;
  rows_ = new QFormLayout(form_);
  rows_->setContentsMargins(0, 0, 0, 0);
  auto* body = new QWidget;
  auto* stack = new QVBoxLayout(body);
  stack->setContentsMargins(0, 0, 4, 0);
  stack->addWidget(form_);
  stack->addWidget(details_);
  stack->addStretch(1);
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidget(body);
  column->addWidget(scroll, 3);

  connect(list_, &QTreeWidget::currentItemChanged, this, [this] { show_selected(); });
  connect(trust_, &QPushButton::clicked, this, &PluginPanel::ask_to_trust);
  connect(untrust_, &QPushButton::clicked, this, [this] { set_trusted(false); });
  connect(toggle_, &QPushButton::clicked, this, [this] {
    if (const auto plugin = host_.find(selected().toStdString())) set_off(!plugin->off());
  });
  if (list_->topLevelItemCount() > 0) list_->setCurrentItem(list_->topLevelItem(0));
  refresh();
}

void PluginPanel::select(const QString& id) {
  for (int i = 0; i < list_->topLevelItemCount(); ++i)
    if (list_->topLevelItem(i)->data(0, Qt::UserRole).toString() == id) list_->setCurrentItem(list_->topLevelItem(i));
}

QString PluginPanel::selected() const {
  return list_->currentItem() ? list_->currentItem()->data(0, Qt::UserRole).toString() : QString();
}
QString PluginPanel::details() const {
  return details_->text();
}

void PluginPanel::refresh() {
  for (int i = 0; i < list_->topLevelItemCount(); ++i) {
    QTreeWidgetItem* item = list_->topLevelItem(i);
    const auto plugin = host_.find(item->data(0, Qt::UserRole).toString().toStdString());
    if (!plugin) continue;
    const PluginStatus status = plugin->status();
    item->setText(2, text(name(status.state)) +
                         (status.faults.empty() ? QString() : tr(" · %1 faults").arg(status.faults.size())));
  }
  show_selected();
}

void PluginPanel::show_selected() {
  const auto plugin = host_.find(selected().toStdString());
  for (QPushButton* one : {trust_, untrust_, toggle_}) one->setVisible(plugin != nullptr);
  if (!plugin) {
    QStringList folders;
    for (const auto& folder : host_.search_path()) folders << "  " + QString::fromStdString(folder.string());
    message_->hide();
    details_->setText(tr("No plugin is found. Looked for in\n%1\nswitchyard plugin new scheme my-gate makes one.")
                          .arg(folders.join('\n')));
    return;
  }
  const Manifest& manifest = plugin->manifest();
  const PluginStatus status = plugin->status();
  message_->setText(QString::fromStdString(status.why));
  message_->setVisible(!status.why.empty());
  trust_->setEnabled(status.state == PluginState::kUntrusted);
  untrust_->setEnabled(manifest.has_code() &&
                       (status.state == PluginState::kReady || status.state == PluginState::kLoaded));
  toggle_->setText(plugin->off() ? tr("Switch on") : tr("Switch off"));
  toggle_->setEnabled(status.state != PluginState::kRefused && !host_.safe_mode());
  QStringList lines;
  if (!manifest.description.empty()) lines << text(manifest.description);
  lines << tr("Id %1, licence %2")
               .arg(text(plugin->id()), manifest.license.empty() ? tr("not told") : text(manifest.license));
  lines << tr("Contracts: core %1, view %2; here core %3, view %4")
               .arg(contract_text(manifest.core), contract_text(manifest.view))
               .arg(SY_CORE_CONTRACT)
               .arg(SY_VIEW_CONTRACT);
  if (!manifest.contributions.empty()) lines << tr("Adds") << contributions_of(manifest);
  lines << tr("Folder %1").arg(QString::fromStdString(plugin->folder().string()));
  if (!plugin->sha256().empty()) lines << tr("Library sha256:%1").arg(text(plugin->sha256()));
  if (status.load_seconds >= 0)
    lines << tr("Opened in %1 ms, trial in a process of its own included").arg(status.load_seconds * 1000, 0, 'f', 1);
  for (const std::string& note : manifest.notes) lines << tr("Note: %1").arg(text(note));
  for (const auto& [what, count] : status.faults)
    lines << tr("Fault, %1 times: %2").arg(qulonglong(count)).arg(text(what));
  const QString all = lines.join('\n');
  if (details_->text() != all) details_->setText(all);
  build_form(*plugin);
}

void PluginPanel::build_form(const Plugin& plugin) {
  const QString id = text(plugin.id());
  if (form_of_ == id) return;
  form_of_ = id;
  while (rows_->rowCount() > 0) rows_->removeRow(0);
  for (const PluginField& field : plugin.manifest().settings) {
    const QString key = text(field.name);
    std::string value;
    plugin.setting(field.name, value);
    QWidget* editor = nullptr;
    QString hint = text(field.title);
    if (field.type == PluginField::Type::kBoolean) {
      auto* box = new QCheckBox;
      box->setChecked(value == "yes");
      connect(box, &QCheckBox::toggled, this, [this, key](bool on) { set_setting(key, on ? "yes" : "no"); });
      editor = box;
    } else if (field.type == PluginField::Type::kChoice) {
      auto* box = new QComboBox;
      for (const std::string& choice : field.choices) box->addItem(text(choice));
      box->setCurrentText(text(value));
      connect(box, &QComboBox::textActivated, this, [this, key](const QString& chosen) { set_setting(key, chosen); });
      editor = box;
    } else {
      auto* line = new QLineEdit(text(value));
      connect(line, &QLineEdit::editingFinished, this, [this, key, line] { set_setting(key, line->text()); });
      editor = line;
      if (field.type != PluginField::Type::kText) hint += tr(", %1 to %2").arg(field.min).arg(field.max);
    }
    if (!field.unit.empty()) hint += " " + text(field.unit);
    editor->setObjectName("plugins.setting." + key);
    editor->setAccessibleName(key);
    editor->setToolTip(hint);
    rows_->addRow(key, editor);
  }
  form_->setVisible(rows_->rowCount() > 0);
}

void PluginPanel::report(const Result<void>& done) {
  if (!done) Q_EMIT failed(done.error());
  refresh();
  Q_EMIT changed();
}

void PluginPanel::ask_to_trust() {
  const auto plugin = host_.find(selected().toStdString());
  if (!plugin) return;
  QMessageBox box(QMessageBox::Warning, tr("Trust a plugin"),
                  tr("Let the native code of \"%1\" run with your rights?").arg(text(plugin->manifest().title)),
                  QMessageBox::Yes | QMessageBox::No, this);
  box.setTextFormat(Qt::PlainText);
  box.setInformativeText(
      tr("%1\nsha256:%2\n\nWhat it does cannot be undone by switching it off. A library with another hash asks anew.")
          .arg(QString::fromStdString(plugin->library().string()), text(plugin->sha256())));
  box.setDefaultButton(QMessageBox::No);
  box.setEscapeButton(QMessageBox::No);
  if (box.exec() == QMessageBox::Yes) set_trusted(true);
}

void PluginPanel::set_trusted(bool trusted) {
  report(host_.trust(selected().toStdString(), trusted));
}
void PluginPanel::set_off(bool off) {
  report(host_.set_off(selected().toStdString(), off));
}

void PluginPanel::set_setting(const QString& key, const QString& value) {
  const auto done = host_.set_setting(selected().toStdString(), key.toStdString(), value.toStdString());
  if (!done) form_of_.clear();  // the field shows what is in force
  report(done);
}

}  // namespace switchyard

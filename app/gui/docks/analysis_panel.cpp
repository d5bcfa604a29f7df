// Options on the left, picture and table on the right. GUI thread.
#include "app/gui/docks/analysis_panel.h"

#include <algorithm>
#include <map>
#include <set>

#include <QComboBox>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QItemSelectionModel>
#include <QLabel>
#include <QMenu>
#include <QPushButton>
#include <QScrollArea>
#include <QSortFilterProxyModel>
#include <QSplitter>
#include <QStackedWidget>
#include <QStandardItemModel>
#include <QTableView>
#include <QVBoxLayout>

#include <fmt/format.h>

#include "app/gui/dock.h"
#include "app/gui/docks/option_form.h"
#include "app/gui/panel_parts.h"
#include "app/gui/picture_copy.h"
#include "app/gui/placement_picture.h"
#include "app/gui/result_picture.h"
#include "app/gui/style.h"
#include "app/gui/table_panel.h"
#include "app/session/run_model.h"
#include "engine/base/atomic_file.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

TableData table_data(const ResultTable& table) {
  TableData data;
  for (const std::string& column : table.columns) {
    const auto c = size_t(&column - table.columns.data());
    const bool reals = std::any_of(table.rows.begin(), table.rows.end(), [c](const auto& row) { return row[c].is_number_float(); });
    data.columns.push_back({column, "", reals ? 5 : 0});
  }
  for (const auto& row : table.rows) {
    for (const auto& cell : row) {
      if (cell.is_number_float()) data.cells.emplace_back(cell.get<double>());
      else if (cell.is_number()) data.cells.emplace_back(cell.get<int64_t>());
      else if (cell.is_null()) data.cells.emplace_back(std::monostate{});
      else data.cells.emplace_back(cell_text(cell, 6));
    }
  }
  return data;
}

const StudyInfo* study_named(const std::string& command) {
  for (const StudyInfo& info : studies())
    if (command_of(info) == command) return &info;
  return nullptr;
}

// "affinity: cut 163 of 1421", where hops were counted.
QString titled(const QString& method, const nlohmann::ordered_json& object, const char* cut) {
  if (!object.contains(cut)) return method;
  return QObject::tr("%1: cut %2 of %3").arg(method).arg(object[cut].get<uint64_t>()).arg(object["total"].get<uint64_t>());
}

}  // namespace

AnalysisPanel::AnalysisPanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), jobs_(jobs) {
  QWidget* left = build_left();
  put_side_by_side(*this, left, 18, build_right(), 60);

  connect(choice_, &QComboBox::currentIndexChanged, this, [this] {
    show_options();
    refresh();
  });
  connect(form_, &OptionForm::submitted, this, &AnalysisPanel::run);
  connect(run_, &QPushButton::clicked, this, &AnalysisPanel::run);
  connect(cancel_, &QPushButton::clicked, this, [this] { jobs_.cancel(running_); });
  connect(tables_, &QComboBox::activated, this, &AnalysisPanel::show_table);
  connect(quantity_, &QComboBox::activated, this, [this](int) {
    if (result_ && tables_->currentIndex() >= 0) show_picture(result_->tables[size_t(tables_->currentIndex())]);
  });
  connect(mute_, &QPushButton::clicked, this, &AnalysisPanel::mute_selected);
  connect(use_, &QPushButton::clicked, this, &AnalysisPanel::use_placement);
  connect(picture_, &ResultPicture::row_clicked, this, &AnalysisPanel::select_point);
  connect(table_->view()->selectionModel(), &QItemSelectionModel::selectionChanged, this, [this] {
    mark_selected();
    refresh();
  });
  connect(&model_, &RunModel::model_changed, this, &AnalysisPanel::refresh);
  connect(&model_, &RunModel::recording_changed, this, &AnalysisPanel::refresh);
  show_options();
  refresh();
}

QWidget* AnalysisPanel::build_left() {
  subject_ = new ElidedLabel;
  subject_->setProperty("kind", "muted");
  choice_ = new QComboBox;
  choice_->setObjectName("analysis.choice");
  choice_->setAccessibleName(tr("Analysis, simulation or placement"));
  choice_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  choice_->setMinimumContentsLength(12);
  choice_->setMaxVisibleItems(30);
  add_choices();
  about_ = new QLabel;
  about_->setWordWrap(true);
  about_->setProperty("kind", "faint");
  form_ = new OptionForm;
  auto* body = new QWidget;
  auto* stack = new QVBoxLayout(body);
  stack->setContentsMargins(0, 0, 8, 0);
  stack->addWidget(about_);
  stack->addWidget(form_);
  stack->addStretch(1);
  QScrollArea* scroll = scrolled(body);
  scroll->setMinimumHeight(QFontMetrics(word_font()).lineSpacing() * 2);
  auto* buttons = new QHBoxLayout;
  run_ = new QPushButton;
  run_->setObjectName("analysis.run");
  cancel_ = new QPushButton(tr("Cancel"));
  cancel_->setObjectName("analysis.cancel");
  buttons->addWidget(run_, 1);
  buttons->addWidget(cancel_);
  auto* left = new QWidget;
  auto* side = new QVBoxLayout(left);
  side->setContentsMargins(0, 0, 4, 0);
  side->addWidget(subject_);
  side->addWidget(choice_);
  side->addWidget(scroll, 1);
  side->addLayout(buttons);
  return left;
}

QWidget* AnalysisPanel::build_right() {
  const auto narrow = [](const char* name, const QString& accessible) {
    auto* choice = new QComboBox;
    choice->setObjectName(name);
    choice->setAccessibleName(accessible);
    choice->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    choice->setMinimumContentsLength(3);
    return choice;
  };
  tables_ = narrow("analysis.table", tr("Table"));
  quantity_ = narrow("analysis.quantity", tr("Quantity of the picture"));
  save_ = new QPushButton(tr("Save, copy"));
  save_->setObjectName("analysis.save");
  auto* menu = new QMenu(save_);
  menu->addAction(tr("This table…"), this, [this] { ask_to_save(false); });
  menu->addAction(tr("Everything as JSON…"), this, [this] { ask_to_save(true); });
  menu->addAction(tr("Add to the report"), this, &AnalysisPanel::report_asked);
  menu->addSeparator();
  add_copy_actions(*menu, [this] { return copyable(); }, true);
  save_->setMenu(menu);
  mute_ = new QPushButton;
  mute_->setObjectName("analysis.mute");
  mute_->setToolTip(tr("Mutes the experts that the rows chosen in the table name, as one edit"));
  use_ = new QPushButton(tr("Use placement"));
  use_->setObjectName("analysis.use");
  use_->setToolTip(tr("Keeps it, and goes to the traffic simulation under it"));
  auto* bar = new QHBoxLayout;
  bar->addWidget(tables_, 2);
  bar->addWidget(quantity_, 2);
  bar->addWidget(save_);
  bar->addWidget(mute_);
  bar->addWidget(use_);
  notes_ = new ElidedLabel;
  notes_->setObjectName("analysis.notes");
  notes_->setProperty("kind", "muted");
  picture_ = new ResultPicture;
  placement_ = new PlacementPicture;
  for (QWidget* picture : {static_cast<QWidget*>(picture_), static_cast<QWidget*>(placement_)}) {
    picture->setContextMenuPolicy(Qt::CustomContextMenu);
    connect(picture, &QWidget::customContextMenuRequested, this, [this, menu, picture](const QPoint& at) {
      if (result_) menu->popup(picture->mapToGlobal(at));
    });
  }
  pictures_ = new QStackedWidget;
  pictures_->addWidget(picture_);
  pictures_->addWidget(placement_);
  twin_ = new TableTwin(this);
  table_ = new TablePanel(twin_, [] {});
  auto* both = new QSplitter(Qt::Horizontal);
  both->setChildrenCollapsible(false);
  both->addWidget(pictures_);
  both->addWidget(table_);
  auto* right = new QWidget;
  auto* shown = new QVBoxLayout(right);
  shown->setContentsMargins(4, 0, 0, 0);
  shown->addLayout(bar);
  shown->addWidget(notes_);
  shown->addWidget(both, 1);
  return right;
}

// Four lists in one, each under its heading.
void AnalysisPanel::add_choices() {
  const auto heading = [this](const QString& text) {
    if (choice_->count() > 0) choice_->insertSeparator(choice_->count());
    choice_->addItem(text);
    auto* item = qobject_cast<QStandardItemModel*>(choice_->model())->item(choice_->count() - 1);
    item->setFlags(Qt::NoItemFlags);
    QFont bold = choice_->font();
    bold.setBold(true);
    item->setFont(bold);
  };
  const auto add = [this](const std::string& name) { choice_->addItem(QString::fromStdString(name), QString::fromStdString(name)); };
  heading(tr("Analyses"));
  for (const AnalysisInfo& info : analyses()) add(info.name);
  const QString titles[] = {tr("Comparison"), tr("Simulations"), tr("Placements")};  // by StudyKind
  const StudyInfo* before = nullptr;
  for (const StudyInfo& info : studies()) {
    if (!before || info.kind != before->kind) heading(titles[size_t(info.kind)]);
    before = &info;
    add(command_of(info));
  }
  choice_->setCurrentIndex(1);
}

std::filesystem::path AnalysisPanel::subject() const {
  if (model_.has_trace()) return model_.trace()->info.path;
  const std::filesystem::path recorded = model_.recording_path();
  if (recorded.empty()) return {};
  // While it goes on the recording has another name.
  return model_.recording() ? std::filesystem::path(recorded.string() + ".part") : recorded;
}

void AnalysisPanel::choose(const QString& name) {
  const int at = choice_->findData(name);
  if (at >= 0) choice_->setCurrentIndex(at);
}

void AnalysisPanel::show_options() {
  const std::string name = choice_->currentData().toString().toStdString();
  const AnalysisInfo* analysis = find_analysis(name);
  const StudyInfo* study = study_named(name);
  if (analysis) form_->show_analysis(*analysis);
  if (study) form_->show_study(*study);
  if (kept_) form_->offer("placement", QString::fromStdString(kept_->name));
  if (analysis || study) about_->setText(QString::fromUtf8(analysis ? analysis->title : study->title) + ".");
  const QString verbs[] = {tr("Compare"), tr("Simulate"), tr("Place")};  // by StudyKind
  run_->setText(study ? verbs[size_t(study->kind)] : tr("Analyse"));
}

void AnalysisPanel::run() {
  const std::filesystem::path path = subject();
  if (path.empty() || running_ != 0) return;
  const std::string name = choice_->currentData().toString().toStdString();
  const QString title = tr("Analysing: %1").arg(choice_->currentText());
  const auto done = [this](Result<TraceAnalysis> result) { take(std::move(result)); };
  given_ = form_->given();
  frozen_ = form_->is_filtered();
  if (const StudyInfo* study = study_named(name)) {
    auto chosen = form_->study_options();
    if (!chosen) return Q_EMIT failed(chosen.error());
    const auto placement = kept_ && form_->chosen("placement", QString::fromStdString(kept_->name)) ? kept_ : nullptr;
    frozen_ = placement != nullptr;
    running_ = jobs_.start(
        "analysis", title, [path, study, placement, chosen = std::move(*chosen)](Task& task) { return study_trace(path, *study, chosen, placement, task); },
        done);
  } else {
    auto chosen = form_->analysis_options();
    if (!chosen) return Q_EMIT failed(chosen.error());
    running_ = jobs_.start(
        "analysis", title,
        [path, name, chosen = std::move(*chosen)](Task& task) { return analyze_trace(path, name, chosen.first, chosen.second, &task); }, done);
  }
  refresh();
}

void AnalysisPanel::take(Result<TraceAnalysis> result) {
  running_ = 0;
  if (!result) {
    if (result.error().code != ErrorCode::kCancelled) Q_EMIT failed(result.error());
    return refresh();
  }
  result_ = std::move(*result);
  QStringList notes;
  for (const std::string& note : result_->notes) notes << QString::fromStdString(note);
  notes_->set_full_text(notes.join("  ·  "));
  tables_->clear();
  int shown = -1;
  for (const ResultTable& table : result_->tables) {
    const bool first = result_->study ? table.name == result_->study->table : !ResultPicture::quantities(table).isEmpty();
    if (shown < 0 && first) shown = tables_->count();
    tables_->addItem(tr("%1 (%2 rows)").arg(QString::fromStdString(table.name)).arg(table.rows.size()));
  }
  if (tables_->count() > 0) {
    tables_->setCurrentIndex(std::max(shown, 0));
    show_table(tables_->currentIndex());
  }
  refresh();
  Q_EMIT finished();
}

void AnalysisPanel::show_table(int index) {
  if (!result_ || index < 0 || size_t(index) >= result_->tables.size()) return;
  const ResultTable& table = result_->tables[size_t(index)];
  const StudyInfo* study = result_->study;
  quantity_->clear();
  quantity_->addItems(ResultPicture::quantities(table));
  if (study && table.name == study->table) quantity_->setCurrentText(QString::fromUtf8(study->quantity));
  const bool matrix = study && study->kind == StudyKind::kPlacement && table.name == study->table;
  quantity_->setVisible(!matrix);
  if (matrix) {
    const nlohmann::ordered_json& object = result_->object;
    if (auto placed = placed_experts(object))
      placement_->show_placement(std::move(*placed), titled(tr("contiguous"), object, "contiguous_cut"), titled(QString::fromUtf8(study->name), object, "cut"));
  } else {
    show_picture(table);
  }
  pictures_->setCurrentWidget(matrix ? static_cast<QWidget*>(placement_) : picture_);
  twin_->set(table_data(table));
  table_->data_changed();
}

// The sides of a cohort have names.
void AnalysisPanel::show_picture(const ResultTable& table) {
  QStringList sides;
  for (const char* side : {"a", "b"})
    if (const auto found = result_->object.find(side); found != result_->object.end() && found->is_object() && found->contains("domain"))
      sides << QString::fromStdString((*found)["domain"].get<std::string>());
  picture_->show_table(table, quantity_->currentText(), sides);
  mark_selected();
}

void AnalysisPanel::refresh_choices() {
  auto* items = qobject_cast<QStandardItemModel*>(choice_->model());
  if (!items) return;
  TraceShape shape;
  if (model_.has_trace()) {
    shape.fields = model_.trace()->info.fields;
    shape.counts_only = model_.trace()->info.counts_only;
  }
  for (int i = 0; i < items->rowCount(); ++i) {
    const std::string name = choice_->itemData(i).toString().toStdString();
    const AnalysisInfo* analysis = find_analysis(name);
    const StudyInfo* study = study_named(name);
    if (!analysis && !study) continue;
    QString reason;
    if (model_.has_trace() && analysis) {
      QStringList lacks;
      for (const std::string& field : missing_fields(*analysis, shape)) lacks << QString::fromStdString(field);
      if (!lacks.isEmpty()) reason = tr("The trace holds no %1.").arg(lacks.join(", "));
    }
    if (model_.has_trace() && study)
      if (const std::string why = why_not(*study, shape); !why.empty()) reason = tr("The trace %1").arg(QString::fromStdString(why));
    items->item(i)->setEnabled(reason.isEmpty());
    items->item(i)->setToolTip(reason.isEmpty() ? QString::fromUtf8(analysis ? analysis->title : study->title) : reason);
  }
}

void AnalysisPanel::refresh() {
  const std::filesystem::path path = subject();
  if (path.empty()) {
    subject_->set_full_text(tr("Open a trace, or record the run: what is here reads traces."));
  } else {
    subject_->set_full_text(model_.recording() && !model_.has_trace() ? tr("%1, as far as it is recorded").arg(QString::fromStdString(path.stem().string()))
                                                                : QString::fromStdString(path.filename().string()));
  }
  refresh_choices();
  run_->setEnabled(!path.empty() && running_ == 0);
  cancel_->setVisible(running_ != 0);
  save_->setEnabled(result_.has_value() && !result_->tables.empty());
  notes_->setVisible(!notes_->full_text().isEmpty());
  const bool places = result_ && result_->study && result_->study->kind == StudyKind::kPlacement;
  use_->setVisible(places);
  mute_->setVisible(!result_ || !result_->study);
  const auto experts = experts_of_selection();
  mute_->setEnabled(model_.has_session() && !experts.empty());
  mute_->setText(experts.empty() ? tr("Mute") : tr("Mute %1").arg(experts.size()));
}

std::vector<std::pair<int, int>> AnalysisPanel::experts_of_selection() const {
  std::set<std::pair<int, int>> found;
  if (!result_ || result_->study || tables_->currentIndex() < 0) return {};
  const ResultTable& table = result_->tables[size_t(tables_->currentIndex())];
  const auto column = [&](const char* name) {
    const auto at = std::find(table.columns.begin(), table.columns.end(), name);
    return at == table.columns.end() ? -1 : int(at - table.columns.begin());
  };
  const int layer = column("layer");
  if (layer < 0) return {};
  // index: a list over experts; i and j: a pair of them.
  std::vector<int> experts;
  for (const char* name : {"expert", "index", "i", "j"})
    if (const int at = column(name); at >= 0) experts.push_back(at);
  if (std::find(table.columns.begin(), table.columns.end(), "reuse_distance") != table.columns.end()) return {};
  const auto value = [&](int row, int c) { return table_->rows()->index(row, c).data(TableTwin::kSortRole); };
  for (const QModelIndex& index : table_->view()->selectionModel()->selectedRows())
    for (const int c : experts) found.emplace(value(index.row(), layer).toInt(), value(index.row(), c).toInt());
  std::erase_if(found, [&](const auto& one) { return one.second < 0 || one.second >= result_->shape.experts; });
  return {found.begin(), found.end()};
}

void AnalysisPanel::mute_selected() {
  std::map<int, std::vector<ExpertId>> by_layer;
  for (const auto& [layer, expert] : experts_of_selection()) by_layer[layer].push_back(ExpertId(expert));
  std::vector<EditCommand> script;
  for (auto& [layer, experts] : by_layer) script.push_back({Mute{{{layer}}, std::move(experts)}, std::nullopt});
  if (!script.empty()) model_.edit(std::move(script), "analysis");
}

void AnalysisPanel::mark_selected() {
  const QModelIndexList chosen = table_->view()->selectionModel()->selectedRows();
  picture_->mark_row(chosen.size() == 1 ? std::optional(size_t(table_->rows()->mapToSource(chosen[0]).row())) : std::nullopt);
}

void AnalysisPanel::select_point(size_t row) {
  table_->select_row(int(row));
  const auto chosen = experts_of_selection();
  if (chosen.size() != 1 || !model_.data().plan) return;
  const auto [layer, expert] = chosen.front();
  const ResultTable& table = result_->tables[size_t(tables_->currentIndex())];
  const auto router = std::find(table.columns.begin(), table.columns.end(), "router");
  const auto& layers = model_.data().plan->moe_layers;
  for (size_t r = 0; r < layers.size(); ++r) {
    const bool other = router != table.columns.end() && r < result_->shape.row_names.size() &&
                       cell_text(table.rows[row][size_t(router - table.columns.begin())], 6) != result_->shape.row_names[r];
    if (layers[r] == layer && !other) return model_.select({int(r), expert, std::nullopt});
  }
}

void AnalysisPanel::use_placement() {
  const std::string name = fmt::format("{} on {} GPUs", result_->study->name, result_->object["gpus"].get<int>());
  kept_ = std::make_shared<KeptPlacement>(KeptPlacement{name, Json(result_->object)});
  choose("simulate traffic");
  const QString entry = QString::fromStdString(name);
  form_->offer("placement", entry);
  form_->set("placement", entry);
  form_->set("gpus", QString::number(result_->object["gpus"].get<int>()));
}

Copyable AnalysisPanel::copyable() const {
  if (!result_ || tables_->currentIndex() < 0) return {};
  const bool placement = pictures_->currentWidget() == placement_;
  ChartSpec chart = placement ? placement_->chart() : picture_->chart();
  if (!placement) chart.title = result_->name + ": " + chart.title;
  return {std::move(chart), result_->tables[size_t(tables_->currentIndex())], pictures_->grab().toImage()};
}

std::optional<ReportItem> AnalysisPanel::report_item() const {
  if (!result_ || tables_->currentIndex() < 0) return std::nullopt;
  const ResultTable& table = result_->tables[size_t(tables_->currentIndex())];
  ReportItem item;
  item.heading = result_->study ? result_->study->title : find_analysis(result_->name)->title;
  if (frozen_) {
    item.source = "view";
    const Copyable shown = copyable();
    if (!shown.chart.empty()) item.chart = shown.chart;
    else item.table = table;
    return item;
  }
  item.source = result_->name;
  item.options = given_;
  const bool placement = pictures_->currentWidget() == placement_;
  const std::string show = placement ? "gpu" : quantity_->currentText().toStdString();
  if (!show.empty()) item.figures.push_back({table.name, show});
  item.tables.push_back(table.name);
  return item;
}

void AnalysisPanel::ask_to_save(bool whole) {
  if (!result_ || tables_->currentIndex() < 0) return;
  const bool places = result_->study && result_->study->kind == StudyKind::kPlacement;
  const std::string base = QString::fromStdString(result_->name).replace(' ', '-').toStdString();
  const std::string name = !whole ? base + "-" + result_->tables[size_t(tables_->currentIndex())].name + ".csv" : places ? "placement.json" : base + ".json";
  QString file = QFileDialog::getSaveFileName(this, tr("Save"), QString::fromStdString(name),
                                              whole ? tr("JSON (*.json)") : tr("CSV (*.csv);;Markdown (*.md);;LaTeX (*.tex)"));
  if (file.isEmpty()) return;
  if (whole && !file.endsWith(".json")) file += ".json";
  if (const auto written = save_to(file); !written) Q_EMIT failed(written.error());
}

Result<void> AnalysisPanel::save_to(const QString& file) const {
  const ResultTable& table = result_->tables[size_t(tables_->currentIndex())];
  const std::string text = file.endsWith(".md")     ? markdown_of(table)
                           : file.endsWith(".tex")  ? latex_of(table, result_->name + ": " + table.name)
                           : file.endsWith(".json") ? result_->object.dump(1) + "\n"
                                                    : csv_of(table);
  return write_file(file.toStdString(), text, Overwrite::kAllow);
}

}  // namespace switchyard

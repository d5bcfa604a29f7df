// Options on the left, picture and table on the right. GUI thread.
#include "app/gui/docks/analysis_panel.h"

#include <algorithm>
#include <map>
#include <set>

#include <QCheckBox>
#include <QComboBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QItemSelectionModel>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QSplitter>
#include <QStandardItemModel>
#include <QTableView>
#include <QVBoxLayout>

#include "app/gui/result_picture.h"
#include "app/gui/style.h"
#include "app/gui/table_panel.h"
#include "app/session/run_model.h"
#include "engine/base/atomic_file.h"
#include "engine/base/number_list.h"
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

}  // namespace

AnalysisPanel::AnalysisPanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), jobs_(jobs) {
  auto* columns = new QHBoxLayout(this);
  columns->setContentsMargins(8, 6, 8, 6);
  auto* split = new QSplitter(Qt::Horizontal);
  split->setChildrenCollapsible(false);
  columns->addWidget(split);

  auto* left = new QWidget;
  auto* side = new QVBoxLayout(left);
  side->setContentsMargins(0, 0, 4, 0);
  subject_ = new QLabel;
  subject_->setWordWrap(true);
  subject_->setTextFormat(Qt::PlainText);
  subject_->setProperty("kind", "muted");
  choice_ = new QComboBox;
  choice_->setObjectName("analysis.choice");
  choice_->setAccessibleName(tr("Analysis"));
  choice_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  choice_->setMinimumContentsLength(18);
  for (const AnalysisInfo& info : analyses()) choice_->addItem(QString::fromUtf8(info.name), QString::fromUtf8(info.name));
  about_ = new QLabel;
  about_->setWordWrap(true);
  about_->setProperty("kind", "faint");
  form_ = new QFormLayout;
  form_->setContentsMargins(0, 4, 0, 4);
  form_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  auto* buttons = new QHBoxLayout;
  run_ = new QPushButton(tr("Analyse"));
  run_->setObjectName("analysis.run");
  cancel_ = new QPushButton(tr("Cancel"));
  cancel_->setObjectName("analysis.cancel");
  buttons->addWidget(run_, 1);
  buttons->addWidget(cancel_);
  side->addWidget(subject_);
  side->addWidget(choice_);
  side->addWidget(about_);
  side->addLayout(form_);
  side->addLayout(buttons);
  side->addStretch(1);
  split->addWidget(left);

  auto* right = new QWidget;
  auto* shown = new QVBoxLayout(right);
  shown->setContentsMargins(4, 0, 0, 0);
  auto* bar = new QHBoxLayout;
  tables_ = new QComboBox;
  tables_->setObjectName("analysis.table");
  tables_->setAccessibleName(tr("Table"));
  quantity_ = new QComboBox;
  quantity_->setObjectName("analysis.quantity");
  quantity_->setAccessibleName(tr("Quantity of the picture"));
  save_ = new QPushButton(tr("Save table…"));
  save_->setObjectName("analysis.save");
  save_->setToolTip(tr("The whole table as CSV, Markdown, LaTeX, or the analysis as JSON, by the suffix"));
  mute_ = new QPushButton(tr("Mute these experts"));
  mute_->setObjectName("analysis.mute");
  mute_->setToolTip(tr("Mutes the experts that the chosen rows name, as one edit"));
  bar->addWidget(tables_, 2);
  bar->addWidget(quantity_, 2);
  bar->addWidget(save_);
  bar->addWidget(mute_);
  shown->addLayout(bar);
  auto* both = new QSplitter(Qt::Horizontal);
  both->setChildrenCollapsible(false);
  picture_ = new ResultPicture;
  both->addWidget(picture_);
  twin_ = new TableTwin(this);
  table_ = new TablePanel(twin_, [] {});
  both->addWidget(table_);
  shown->addWidget(both, 1);
  split->addWidget(right);
  split->setStretchFactor(0, 0);
  split->setStretchFactor(1, 1);

  connect(choice_, &QComboBox::currentIndexChanged, this, [this] {
    build_options();
    refresh();
  });
  connect(run_, &QPushButton::clicked, this, &AnalysisPanel::run);
  connect(cancel_, &QPushButton::clicked, this, [this] { jobs_.cancel(running_); });
  connect(tables_, &QComboBox::activated, this, &AnalysisPanel::show_table);
  connect(quantity_, &QComboBox::activated, this, [this](int) {
    if (result_ && tables_->currentIndex() >= 0) picture_->show_table(result_->tables[size_t(tables_->currentIndex())], quantity_->currentText());
  });
  connect(save_, &QPushButton::clicked, this, &AnalysisPanel::save_tables);
  connect(mute_, &QPushButton::clicked, this, &AnalysisPanel::mute_selected);
  connect(table_->view()->selectionModel(), &QItemSelectionModel::selectionChanged, this, &AnalysisPanel::refresh);
  connect(&model_, &RunModel::model_changed, this, &AnalysisPanel::refresh);
  connect(&model_, &RunModel::recording_changed, this, &AnalysisPanel::refresh);
  build_options();
  refresh();
}

std::filesystem::path AnalysisPanel::subject() const {
  if (model_.has_trace()) return model_.trace()->info.path;
  const std::filesystem::path recorded = model_.recording_path();
  if (recorded.empty()) return {};
  // While it goes on the recording has another name.
  return model_.recording() ? std::filesystem::path(recorded.string() + ".part") : recorded;
}

void AnalysisPanel::choose(const QString& analysis) {
  const int at = choice_->findData(analysis);
  if (at >= 0) choice_->setCurrentIndex(at);
}

void AnalysisPanel::build_options() {
  while (form_->rowCount() > 0) form_->removeRow(0);
  fields_.clear();
  const AnalysisInfo* info = find_analysis(choice_->currentData().toString().toStdString());
  if (!info) return;
  about_->setText(QString::fromUtf8(info->title) + ".");
  for (const AnalysisOption& option : analysis_options()) {
    if (std::none_of(info->options.begin(), info->options.end(), [&](const char* one) { return std::string_view(one) == option.name; })) continue;
    const QString name = QString::fromUtf8(option.name), help = QString::fromUtf8(option.help);
    QWidget* field = nullptr;
    if (option.standard) {
      auto* line = new QLineEdit(QString::fromUtf8(option.standard));
      connect(line, &QLineEdit::returnPressed, this, &AnalysisPanel::run);
      field = line;
      form_->addRow(name, field);
    } else {
      field = new QCheckBox(name);
      form_->addRow(field);
    }
    field->setToolTip(help);
    field->setAccessibleName(name);
    field->setObjectName("analysis.option." + name);
    fields_.emplace_back(name, field);
  }
  layers_ = new QLineEdit;
  layers_->setObjectName("analysis.layers");
  layers_->setPlaceholderText(tr("all; or 3, 2-5, 1,4-6"));
  connect(layers_, &QLineEdit::returnPressed, this, &AnalysisPanel::run);
  domain_ = new QLineEdit;
  domain_->setObjectName("analysis.domain");
  domain_->setPlaceholderText(tr("all"));
  connect(domain_, &QLineEdit::returnPressed, this, &AnalysisPanel::run);
  phase_ = new QComboBox;
  phase_->setObjectName("analysis.phase");
  phase_->addItems({tr("all tokens"), tr("prefill"), tr("decode")});
  form_->addRow(tr("layers"), layers_);
  form_->addRow(tr("domain"), domain_);
  form_->addRow(tr("phase"), phase_);
}

Result<std::pair<AnalysisOptions, WalkFilter>> AnalysisPanel::options() const {
  AnalysisOptions out;
  WalkFilter filter;
  for (const auto& [name, field] : fields_) {
    const auto* box = qobject_cast<QCheckBox*>(field);
    if (box && !box->isChecked()) continue;
    SY_CHECK(set_option(out, name.toStdString(), box ? std::string() : qobject_cast<QLineEdit*>(field)->text().trimmed().toStdString()));
  }
  SY_TRY(filter.layers, number_list(layers_->text().trimmed().toStdString(), "layers"));
  filter.domain = domain_->text().trimmed().toStdString();
  if (phase_->currentIndex() > 0) filter.phase = uint8_t(phase_->currentIndex() - 1);
  return std::pair{out, filter};
}

void AnalysisPanel::run() {
  const std::filesystem::path path = subject();
  if (path.empty() || running_ != 0) return;
  auto chosen = options();
  if (!chosen) return Q_EMIT failed(chosen.error());
  const std::string name = choice_->currentData().toString().toStdString();
  running_ = jobs_.start(
      "analysis", tr("Analysing: %1").arg(choice_->currentText()),
      [path, name, chosen = std::move(*chosen)](Task& task) { return analyze_trace(path, name, chosen.first, chosen.second, &task); },
      [this](Result<TraceAnalysis> result) {
        running_ = 0;
        if (!result) {
          if (result.error().code != ErrorCode::kCancelled) Q_EMIT failed(result.error());
          return refresh();
        }
        result_ = std::move(*result);
        tables_->clear();
        int shown = 0;
        for (const ResultTable& table : result_->tables) {
          if (shown == 0 && !ResultPicture::quantities(table).isEmpty()) shown = tables_->count();
          tables_->addItem(tr("%1 (%2 rows)").arg(QString::fromStdString(table.name)).arg(table.rows.size()));
        }
        if (tables_->count() > 0) {
          tables_->setCurrentIndex(shown);
          show_table(shown);
        }
        refresh();
        Q_EMIT finished();
      });
  refresh();
}

void AnalysisPanel::show_table(int index) {
  if (!result_ || index < 0 || size_t(index) >= result_->tables.size()) return;
  const ResultTable& table = result_->tables[size_t(index)];
  quantity_->clear();
  quantity_->addItems(ResultPicture::quantities(table));
  picture_->show_table(table, quantity_->currentText());
  twin_->set(table_data(table));
  table_->data_changed();
}

void AnalysisPanel::refresh() {
  const std::filesystem::path path = subject();
  if (path.empty()) {
    subject_->setText(tr("Open a trace, or record the run: analyses read traces."));
  } else {
    subject_->setText(model_.recording() && !model_.has_trace() ? tr("%1, as far as it is recorded").arg(QString::fromStdString(path.stem().string()))
                                                                : QString::fromStdString(path.filename().string()));
  }
  // An analysis that the shown trace cannot feed is greyed, with what it lacks.
  if (auto* items = qobject_cast<QStandardItemModel*>(choice_->model())) {
    TraceShape shape;
    if (model_.has_trace()) shape.fields = model_.trace()->info.fields;
    for (int i = 0; i < items->rowCount(); ++i) {
      const AnalysisInfo* info = find_analysis(choice_->itemData(i).toString().toStdString());
      QString lacks;
      if (model_.has_trace() && info)
        for (const std::string& field : missing_fields(*info, shape)) lacks += (lacks.isEmpty() ? "" : ", ") + QString::fromStdString(field);
      items->item(i)->setEnabled(lacks.isEmpty());
      items->item(i)->setToolTip(lacks.isEmpty() ? QString::fromUtf8(info ? info->title : "") : tr("The trace holds no %1.").arg(lacks));
    }
  }
  run_->setEnabled(!path.empty() && running_ == 0);
  cancel_->setVisible(running_ != 0);
  save_->setEnabled(result_.has_value() && !result_->tables.empty());
  const bool edits = model_.has_session();
  const auto experts = experts_of_selection();
  mute_->setEnabled(edits && !experts.empty());
  mute_->setText(experts.empty() ? tr("Mute these experts") : tr("Mute %n experts", "", int(experts.size())));
}

std::vector<std::pair<int, int>> AnalysisPanel::experts_of_selection() const {
  std::set<std::pair<int, int>> found;
  if (!result_ || tables_->currentIndex() < 0) return {};
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

void AnalysisPanel::save_tables() {
  if (!result_ || tables_->currentIndex() < 0) return;
  const ResultTable& table = result_->tables[size_t(tables_->currentIndex())];
  const QString suggested = QString::fromStdString(result_->name + "-" + table.name + ".csv");
  const QString file = QFileDialog::getSaveFileName(this, tr("Save table"), suggested, tr("CSV (*.csv);;Markdown (*.md);;LaTeX (*.tex);;The whole analysis (*.json)"));
  if (file.isEmpty()) return;
  const std::string text = file.endsWith(".md")     ? markdown_of(table)
                           : file.endsWith(".tex")  ? latex_of(table, result_->name + ": " + table.name)
                           : file.endsWith(".json") ? result_->object.dump(1) + "\n"
                                                    : csv_of(table);
  const auto written = write_file(file.toStdString(), text, Overwrite::kAllow);
  if (!written) Q_EMIT failed(written.error());
}

}  // namespace switchyard

// The Adaptation panel from the user's hand: start, watch the steps come, freeze, revert. And what else writes or reads a
// whole run from the menus: replaying a trace, exporting the edited model.
#include <algorithm>

#include <QAction>
#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QStyle>
#include <QTableView>

#include "app/gui/action_table.h"
#include "app/gui/adaptation_plot.h"
#include "app/gui/docks/adaptation_panel.h"
#include "app/gui/docks/gradient_panel.h"
#include "app/gui/docks/lens_panel.h"
#include "app/gui/result_picture.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "engine/trace/replay.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class AdaptationWindow : public DemoWindow {
 protected:
  void SetUp() override {
    DemoWindow::SetUp();
    if (HasFatalFailure()) return;
    window_->actions().run("adapt.panel");
    ASSERT_TRUE(wait_until([&] { return panel().isVisible(); }));
  }
  AdaptationPanel& panel() { return window_->adaptation(); }
  template <class Widget>
  Widget* field(const char* name) {
    auto* found = panel().findChild<Widget*>(QString("adaptation.") + name);
    EXPECT_TRUE(found) << name;
    return found;
  }
  void pick(AdaptMethod method) {
    auto* list = field<QComboBox>("method");
    list->setCurrentIndex(list->findData(int(method)));
    Q_EMIT list->activated(list->currentIndex());
  }
  std::shared_ptr<const AdaptationState> state() { return model().snapshot()->adaptation; }
  QString status() { return field<QLabel>("status")->text(); }
};

TEST_F(AdaptationWindow, StepsComeAsEntriesOfTheHistoryAndAreRevertedByOneClick) {
  pick(AdaptMethod::kUsageBias);
  field<QDoubleSpinBox>("every")->setValue(8);
  field<QDoubleSpinBox>("max_steps")->setValue(3);
  field<QDoubleSpinBox>("steps")->setValue(2);
  field<QDoubleSpinBox>("lr")->setValue(0.05);
  field<QDoubleSpinBox>("layer_share")->setValue(1);
  EXPECT_EQ(panel().plan().every, 8);
  EXPECT_EQ(panel().plan().options.lr, 0.05);
  EXPECT_FALSE(field<QPushButton>("freeze")->isEnabled());
  QTest::mouseClick(field<QPushButton>("start"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return state() != nullptr; })) << newest_message();
  EXPECT_EQ(state()->plan, panel().plan());
  EXPECT_EQ(field<QPushButton>("start")->text(), "Start anew");

  run("The king said unto the people", 40);
  ASSERT_TRUE(wait_until([&] { return state()->log.size() == 3; })) << newest_message();
  const auto& history = model().snapshot()->history;
  ASSERT_EQ(history.size(), 3u);
  EXPECT_EQ(history[2].sentence, "Adaptation · step 3");
  EXPECT_TRUE(status().contains("3 of 3 steps: the budget is spent")) << status().toStdString();

  // The curves are the log.
  ASSERT_TRUE(wait_until([&] { return panel().plot().charts()[0].curves[0].values.size() == 3; }));
  const auto& charts = panel().plot().charts();
  for (size_t i = 0; i < 3; ++i) {
    const AdaptationEntry& entry = state()->log[i];
    EXPECT_EQ(charts[0].curves[0].values[i], entry.loss_after);
    EXPECT_EQ(charts[0].curves[1].values[i], entry.loss_before);
    ASSERT_EQ(charts[1].curves.size(), 8u);
    EXPECT_EQ(charts[1].curves[5].values[i], entry.norms[5]);
    EXPECT_EQ(charts[2].curves[0].values[i], 100 * entry.rerouted);
    EXPECT_EQ(charts[3].curves[0].values[i], entry.path_distance);
  }
  EXPECT_TRUE(panel().plot().accessibleDescription().contains("loss: "));

  // And so is the table behind the header.
  Dock* dock = window_->workbench().dock("adaptation");
  dock->show_table(true);
  auto* table = dock->table()->findChild<QTableView*>();
  ASSERT_TRUE(table && wait_until([&] { return table->model()->rowCount() == 3; }));
  EXPECT_EQ(table->model()->headerData(4, Qt::Horizontal).toString().section('\n', 0, 0), "context");
  dock->show_table(false);

  QTest::mouseClick(field<QPushButton>("revert"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return state()->phase == AdaptationState::Phase::kReverted; }));
  EXPECT_EQ(model().snapshot()->history.back().sentence, "Adaptation · reverted");
  EXPECT_TRUE(model().snapshot()->epochs.back().recipe->is_identity());
  ASSERT_TRUE(wait_until([&] { return !field<QPushButton>("revert")->isEnabled(); }));
  window_->actions().run("edit.undo");
  ASSERT_TRUE(wait_until([&] { return !model().snapshot()->epochs.back().recipe->is_identity(); }));
}

TEST_F(AdaptationWindow, FreezesByTheActionAndGoesOn) {
  pick(AdaptMethod::kSpsa);
  field<QDoubleSpinBox>("every")->setValue(8);
  window_->actions().run("adapt.start");
  ASSERT_TRUE(wait_until([&] { return state() != nullptr; })) << newest_message();
  run("The king", 4);
  ASSERT_TRUE(wait_until([&] { return state()->log.size() == 1; })) << newest_message();
  window_->actions().run("adapt.freeze");
  ASSERT_TRUE(wait_until([&] { return field<QPushButton>("freeze")->text() == "Go on"; }));
  EXPECT_TRUE(status().startsWith("frozen after 1 of 8 steps")) << status().toStdString();
  model().play(16);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->generated_ids.size() == 20 && model().state() == RunState::kFinished; }));
  EXPECT_EQ(state()->log.size(), 1u);
  window_->actions().run("adapt.freeze");
  ASSERT_TRUE(wait_until([&] { return state()->phase == AdaptationState::Phase::kActive; }));
  model().play(16);
  ASSERT_TRUE(wait_until([&] { return state()->log.size() > 1; })) << newest_message();
}

TEST_F(AdaptationWindow, SaysWhyAMethodCannotStart) {
  pick(AdaptMethod::kRewire);
  EXPECT_FALSE(field<QPushButton>("start")->isEnabled());
  EXPECT_TRUE(field<QLabel>("message")->isVisible());
  EXPECT_TRUE(field<QLabel>("message")->text().contains("needs the reference backend"));
  pick(AdaptMethod::kEma);
  EXPECT_TRUE(field<QPushButton>("start")->isEnabled());
  EXPECT_FALSE(panel().findChild<QDoubleSpinBox*>("adaptation.lr"));
  auto* layers = field<QLineEdit>("layers");
  layers->setText("2, 99");
  Q_EMIT layers->editingFinished();
  EXPECT_TRUE(field<QLabel>("message")->text().contains("layer 99 has no experts"));
  EXPECT_FALSE(field<QPushButton>("start")->isEnabled());
  layers->setText("2, 3");
  Q_EMIT layers->editingFinished();
  EXPECT_TRUE(field<QPushButton>("start")->isEnabled());
  EXPECT_EQ(panel().plan().options.layers, (std::vector<int>{2, 3}));
}

#ifdef SWITCHYARD_WITH_REFERENCE
TEST_F(AdaptationWindow, TakesTheGradientBesideTheRun) {
  EXPECT_FALSE(window_->actions().action("gradient.compute")->isEnabled());
  run("The king said unto the people", 16);
  model().select({4, std::nullopt, std::nullopt});
  window_->actions().run("gradient.compute");
  GradientPanel& gradients = window_->gradients();
  ASSERT_TRUE(wait_until([&] { return gradients.lens() != nullptr; }, 60'000)) << newest_message();
  const GateLens& lens = gradients.lens()->rows[4];
  ASSERT_EQ(lens.tokens.size(), model().snapshot()->prompt_ids.size() + 16);
  // Renormalised weights: the sparse gradient of a layer adds up to 0, and idle experts have none.
  double sum = 0;
  for (const double value : lens.sparse) sum += value;
  EXPECT_NEAR(sum, 0, 1e-4);
  const TableData table = gradients.table();
  ASSERT_GT(table.rows(), 0u);
  for (size_t row = 0; row < table.rows(); ++row) {
    const auto token = size_t(std::get<int64_t>(table.cells[row * 5]));
    if (token >= model().data().tokens()) continue;  // the newest is not routed
    const auto wanted = ExpertId(std::get<int64_t>(table.cells[row * 5 + 2]));
    const auto ran = model().data().frames[token]->used_ids(4);
    EXPECT_EQ(std::find(ran.begin(), ran.end(), wanted), ran.end()) << "token " << token;
    EXPECT_LT(std::get<double>(table.cells[row * 5 + 3]), 0);
    EXPECT_EQ(std::get<double>(table.cells[row * 5 + 4]), 0);
  }
  auto* summary = gradients.findChild<QLabel*>("gradient.summary");
  EXPECT_TRUE(summary->text().startsWith("Layer 4: ")) << summary->text().toStdString();
  model().select({5, std::nullopt, std::nullopt});
  EXPECT_TRUE(wait_until([&] { return summary->text().startsWith("Layer 5: "); }));
  run("Another text", 4);  // the lens was of the text before
  EXPECT_TRUE(wait_until([&] { return gradients.lens() == nullptr; }));
}

TEST_F(AdaptationWindow, ReadsTheLayersBesideTheRun) {
  EXPECT_FALSE(window_->actions().action("lens.compute")->isEnabled());
  run("The king said unto the people", 12);
  window_->actions().run("lens.compute");
  LensPanel& panel = window_->lens();
  ASSERT_TRUE(wait_until([&] { return panel.lens() != nullptr; }, 60'000)) << newest_message();
  const LogitLens& lens = *panel.lens();
  ASSERT_EQ(lens.places.size(), 16u);
  EXPECT_EQ(lens.behind[7], "3 experts");
  const auto& s = *model().snapshot();
  ASSERT_EQ(lens.places.back().tokens.size(), s.prompt_ids.size() + s.generated_ids.size());
  // Behind the last layer it is the model; greedy or not, what was generated is likely there.
  EXPECT_EQ(lens.places.back().agreement(), 1);
  EXPECT_NEAR(lens.places.back().mean_kl(), 0, 1e-6);
  EXPECT_GT(lens.places.front().mean_kl(), 0.1);
  EXPECT_TRUE(panel.picture().is_heat_map());
  EXPECT_EQ(panel.table().rows(), 16 * lens.places[0].tokens.size());
  // Another branch of the sequence is another text, once it differs.
  model().rewind(s.prompt_ids.size() + 2);
  EXPECT_TRUE(wait_until([&] { return panel.lens() == nullptr; }));

  // Each pass over a layer is read, a skipped layer is not.
  ASSERT_TRUE(model().edit(EditCommand{LayerPath{.passes = {1, 2, 1, 0, 1, 1, 1, 1}}, {}}));
  run("Another text", 4);
  window_->actions().run("lens.compute");
  ASSERT_TRUE(wait_until([&] { return panel.lens() != nullptr; }, 60'000)) << newest_message();
  const auto& behind = panel.lens()->behind;
  EXPECT_EQ((std::vector<std::string>(behind.begin() + 2, behind.begin() + 8)),
            (std::vector<std::string>{"1 attention", "1 experts", "1 attention · pass 2", "1 experts · pass 2", "2 attention", "2 experts"}));
  EXPECT_EQ(behind[8], "4 attention");
  EXPECT_NEAR(panel.lens()->places.back().mean_kl(), 0, 1e-6);
  // Where the gradient is not to be had, the window says why and goes on.
  window_->actions().run("gradient.compute");
  EXPECT_TRUE(wait_until([&] { return newest_message().find("knows no layer paths") != std::string::npos; }, 60'000)) << newest_message();
}
#endif

// A trace replayed from the menu's job: the text and routing of the recorded run, without its edits.
TEST_F(AdaptationWindow, ReplaysATrace) {
  read_schemes_from_traces();
  const TemporaryFolder folder;
  const std::filesystem::path trace = folder / "run.moetrace.h5";
  ASSERT_TRUE(model().edit(EditCommand{Bias{{{2}}, {4}, 1.5f}, {}}));
  model().record_to(trace, false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("The king said unto the people", 20);
  const auto ids = model().snapshot()->generated_ids;
  std::vector<ExpertId> routes;
  for (const auto& frame : model().data().frames)
    for (const ExpertId id : frame->used_ids(2)) routes.push_back(id);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(trace); }));
  window_->actions().run("edit.undo");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->epochs.back().recipe->is_identity(); }));
  const uint32_t sequence = model().snapshot()->sequence;

  model().replay(trace);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->sequence != sequence && model().state() == RunState::kFinished; })) << newest_message();
  model().drain();
  EXPECT_EQ(model().snapshot()->generated_ids, ids);
  std::vector<ExpertId> again;
  for (const auto& frame : model().data().frames)
    for (const ExpertId id : frame->used_ids(2)) again.push_back(id);
  EXPECT_EQ(again, routes);
  EXPECT_TRUE(QString::fromStdString(model().snapshot()->history.back().sentence).contains("replay"));

  model().replay(folder / "none.moetrace.h5");
  EXPECT_TRUE(wait_until([&] { return newest_message().find("none.moetrace.h5") != std::string::npos; }));
}

// Types a path into the file dialog that the action opens, and accepts it. Not QFileDialog::selectFile, which leaves the
// name alone once the field has the focus. A dialog that does not take the path is closed, so that the test fails.
void answer_dialog(const QString& path, bool* seen) {
  QTimer::singleShot(50, [path, seen] {
    auto* dialog = qobject_cast<QFileDialog*>(QApplication::activeModalWidget());
    auto* name = dialog ? dialog->findChild<QLineEdit*>("fileNameEdit") : nullptr;
    if (!name) return answer_dialog(path, seen);
    name->setText(path);
    QMetaObject::invokeMethod(dialog, "accept");
    *seen = !dialog->isVisible();
    if (!*seen) dialog->reject();
  });
}

TEST_F(AdaptationWindow, ExportsTheEditedModelFromTheMenu) {
  const auto newest_is = [&](const char* part) {
    return wait_until([&] { return newest_message().find(part) != std::string::npos; });
  };
  EXPECT_FALSE(window_->actions().action("file.export")->isEnabled()) << "nothing is edited";
  ASSERT_TRUE(model().edit(EditCommand{Mute{{}, {5, 9}}, {}}));
  ASSERT_TRUE(model().edit(EditCommand{Bias{{{2}}, {4}, 0.75f}, {}}));
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history.size() == 2; }));
  const TemporaryFolder folder;
  const QString target = QString::fromStdString((folder / "edited").string());
  bool seen = false;
  // A bias of the logits is nothing that this architecture has: told, and nothing is left behind.
  answer_dialog(target, &seen);
  window_->actions().run("file.export");
  EXPECT_TRUE(seen);
  ASSERT_TRUE(newest_is("bias")) << newest_message();
  EXPECT_FALSE(std::filesystem::exists(folder / "edited"));

  window_->actions().run("edit.undo");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 1; }));
  run("The king said unto the people", 16);
  answer_dialog(target, &seen);
  window_->actions().run("file.export");
  EXPECT_TRUE(seen);
  ASSERT_TRUE(newest_is("Exported to")) << newest_message();
  // What was written is the edited model: two experts fewer in every layer, and the same text.
  const auto written = open_checkpoint((folder / "edited").string());
  ASSERT_TRUE(written.has_value()) << written.error().message();
  EXPECT_EQ(written->plan.max_experts(), 30);
  SessionOptions options{.backend = "cpu", .threads = 1, .sampling = model().snapshot()->sampling};
  auto session = Session::open(*written, options);
  ASSERT_TRUE(session.has_value()) << session.error().message();
  (*session)->send(Start{model().snapshot()->prompt_ids, 16, false});
  EXPECT_EQ((*session)->wait()->generated_ids, model().snapshot()->generated_ids);

  // A folder that is there is not written over.
  const auto before = std::filesystem::last_write_time(folder / "edited");
  model().export_model(folder / "edited");
  ASSERT_TRUE(newest_is("not an empty folder")) << newest_message();
  EXPECT_EQ(std::filesystem::last_write_time(folder / "edited"), before);
}

}  // namespace
}  // namespace switchyard

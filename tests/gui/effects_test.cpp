// The Edit effects panel from the user's hand: mute, measure, read, click, edit again; against `switchyard score --baseline`
// on the same ids.
#include <algorithm>
#include <cmath>

#include <QHelpEvent>
#include <QLabel>
#include <QProcess>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QToolTip>

#include <nlohmann/json.hpp>

#include "app/gui/action_table.h"
#include "app/gui/docks/effect_panel.h"
#include "app/gui/effect_bars.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "engine/runtime/effect_run.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class EffectsWindow : public DemoWindow {
 protected:
  void SetUp() override {
    DemoWindow::SetUp();
    if (!HasFatalFailure()) window_->show_dock("edit_effects");
  }
  EffectPanel& panel() { return window_->effects(); }
  QString words(const char* name) {
    QStringList lines;
    for (const QLabel* label : panel().findChildren<QLabel*>(QString("effects.") + name)) {
      const auto* elided = qobject_cast<const ElidedLabel*>(label);
      lines << (elided ? elided->full_text() : label->text());
    }
    return lines.join('\n');
  }
  bool shows(const char* name) { return panel().findChild<QWidget*>(QString("effects.") + name)->isVisible(); }
  const EditEffect& effect() { return panel().effect()->effect; }
  void edit(Edit edit) {
    const size_t history = model().snapshot()->history_cursor;
    ASSERT_TRUE(model().edit(EditCommand{std::move(edit), {}}));
    ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor > history && model().snapshot()->history.back().applied; }));
  }
  void measure() {
    window_->actions().run("effects.compute");
    ASSERT_TRUE(wait_until([&] { return panel().effect() && !panel().running(); })) << newest_message();
  }
  QString tip_at(QWidget* widget, const QPoint& at) {
    QHelpEvent help(QEvent::ToolTip, at, widget->mapToGlobal(at));
    QApplication::sendEvent(widget, &help);
    return QToolTip::text().replace(QChar::Nbsp, ' ');
  }
};

// What the command line prints for the ids of the text.
nlohmann::json scored(const std::vector<TokenId>& ids, const std::string& script) {
  const TemporaryFolder folder;
  std::ofstream(folder / "e.json") << script;
  QStringList list;
  for (const TokenId id : ids) list << QString::number(id);
  QProcess score;
  score.start(SWITCHYARD_PROGRAM, {"score", "demo", "--token-ids", list.join(','), "--edits", QString::fromStdString((folder / "e.json").string()), "--baseline", "--json"});
  EXPECT_TRUE(score.waitForFinished(60'000) && score.exitCode() == 0) << score.readAllStandardError().toStdString();
  return nlohmann::json::parse(score.readAllStandardOutput().toStdString(), nullptr, false);
}

TEST_F(EffectsWindow, NumbersAreThoseOfScore) {
  edit(Mute{{{3}}, {5, 18}});
  run("The king said unto the people", 24);
  measure();
  const SessionSnapshot& s = *model().snapshot();
  std::vector<TokenId> ids = s.prompt_ids;
  ids.insert(ids.end(), s.generated_ids.begin(), s.generated_ids.end());
  ASSERT_EQ(effect().positions().size(), ids.size() - 1);
  const auto document = scored(ids, to_json_script({{Mute{{{3}}, {5, 18}}, {}}}));
  ASSERT_TRUE(document.is_object());
  const auto& base = document["baseline"];
  const double before = effect().mean(&PositionEffect::nll_base), after = effect().mean(&PositionEffect::nll_edited);
  EXPECT_EQ(document["tokens"], effect().positions().size());
  EXPECT_NEAR(after, document["nll"], 1e-12);
  EXPECT_NEAR(before, base["nll"], 1e-12);
  EXPECT_NEAR(perplexity(after), document["ppl"], 1e-9);
  EXPECT_NEAR(perplexity(before), base["ppl"], 1e-9);
  EXPECT_NEAR(effect().mean(&PositionEffect::kl), base["kl"], 1e-12);
  EXPECT_NEAR(effect().dnll(), base["dnll"], 1e-12);
  EXPECT_NEAR(effect().top1_flip_rate(), base["top1_flips"], 1e-12);
  EXPECT_GT(std::abs(after - before), 1e-4) << "the edit must show";

  const QString summary = words("summary");
  for (const double value : {perplexity(before), perplexity(after), std::exp(after - before), before, after})
    EXPECT_TRUE(summary.contains(QString::number(value, 'f', 4))) << value << " in " << summary.toStdString();
  EXPECT_TRUE(words("whose").contains("whichever model was running") && shows("whose"));
}

TEST_F(EffectsWindow, TableHoldsThePositionsAndSorts) {
  edit(Mute{{{3}}, {5, 18}});
  run("The king said unto the people", 24);
  measure();
  Dock* dock = window_->workbench().dock("edit_effects");
  dock->show_table(true);
  auto* table = dock->table()->findChild<QTableView*>();
  const size_t count = effect().positions().size();
  ASSERT_TRUE(table && wait_until([&] { return table->model()->rowCount() == int(count); }));
  const auto cell = [&](int row, int column) { return table->model()->index(row, column).data(TableTwin::kSortRole); };
  for (int row = 0; row < int(count); ++row) {
    const PositionEffect& one = effect().positions()[size_t(row)];
    EXPECT_EQ(cell(row, 0).toInt(), row + 1);
    EXPECT_EQ(cell(row, 1).toString().toStdString(), model().data().pieces[size_t(row) + 1]);
    const double wanted[] = {one.kl, one.js, one.nll_base, one.nll_edited, one.nll_edited - one.nll_base};
    for (int c = 0; c < 5; ++c) EXPECT_EQ(cell(row, 2 + c).toDouble(), wanted[c]) << row << ", " << c;
    EXPECT_EQ(cell(row, 7).toInt(), int(one.top1_flip));
  }
  table->sortByColumn(2, Qt::DescendingOrder);
  EXPECT_EQ(cell(0, 0).toUInt(), effect().worst_positions(1)[0] + 1);
}

TEST_F(EffectsWindow, PictureTellsAndSelectsTokens) {
  edit(Mute{{{3}}, {5, 18}});
  run("The king said unto the people", 24);
  measure();
  ASSERT_TRUE(wait_until([&] { return panel().bars().isVisible() && panel().bars().width() > 60; }));
  const uint64_t token = 7;
  const QPoint at = QRectF(panel().bars().bar(token)).center().toPoint();
  ASSERT_EQ(panel().bars().token_at(at), token);
  const QString tip = tip_at(&panel().bars(), at);
  EXPECT_TRUE(tip.contains("token 7") && tip.contains("KL ") && tip.contains("NLL ") && tip.contains(" before")) << tip.toStdString();
  QTest::mouseClick(&panel().bars(), Qt::LeftButton, {}, at);
  EXPECT_EQ(model().cursor(), TimeCursor(token));
  // The text tints by KL: the largest most, the first token, which nothing predicts, not at all.
  TokenTextView& text = panel().text();
  ASSERT_TRUE(text.isVisible());
  QTest::mouseClick(text.viewport(), Qt::LeftButton, {}, text.token_rect(2).center());
  EXPECT_EQ(model().cursor(), TimeCursor(2));
  const QString of_text = tip_at(text.viewport(), text.token_rect(2).center());
  EXPECT_TRUE(of_text.contains("token 2") && of_text.contains("KL ")) << of_text.toStdString();
  const QImage shown = text.viewport()->grab().toImage();
  const auto ground = [&](uint64_t of) { return shown.pixelColor((text.token_rect(of).topLeft() + QPoint(3, 5))); };
  const uint64_t worst = effect().worst_positions(1)[0] + 1;
  ASSERT_TRUE(worst != 2 && text.viewport()->rect().contains(text.token_rect(worst)));
  EXPECT_NE(ground(worst), ground(0));
}

TEST_F(EffectsWindow, SaysWhatToDoNextAndWhatIsStale) {
  EXPECT_TRUE(panel().why_not().contains("run a prompt")) << panel().why_not().toStdString();
  run("The king said unto the people", 8);
  EXPECT_TRUE(panel().why_not().contains("no edits are in force"));
  EXPECT_TRUE(wait_until([&] { return words("message").contains("no edits are in force"); }));
  EXPECT_FALSE(panel().findChild<QPushButton*>("effects.compute")->isEnabled());
  EXPECT_FALSE(shows("text"));

  edit(Mute{{{3}}, {5}});
  ASSERT_TRUE(wait_until([&] { return panel().why_not().isEmpty(); }));
  measure();
  EXPECT_FALSE(panel().stale());
  edit(Bias{{{2}}, {4}, 1.5f});
  EXPECT_TRUE(wait_until([&] { return shows("stale"); }));
  EXPECT_TRUE(panel().stale());
  window_->actions().run("edit.undo");
  EXPECT_TRUE(wait_until([&] { return !shows("stale"); })) << "the same edits are in force again";
  // All undone: the numbers stay, but none could be made now.
  window_->actions().run("edit.undo");
  EXPECT_TRUE(wait_until([&] { return shows("stale"); }));
  EXPECT_TRUE(panel().effect());
  run("Another text", 4);
  EXPECT_TRUE(wait_until([&] { return !panel().effect() && !shows("stale") && !shows("bars"); }));
}

TEST_F(EffectsWindow, CancelLeavesNothing) {
  edit(Mute{{{3}}, {5}});
  run("The king said unto the people", 8);
  const size_t messages = window_->log().entries().size();
  window_->actions().run("effects.compute");
  ASSERT_TRUE(panel().running());
  EXPECT_FALSE(panel().findChild<QPushButton*>("effects.compute")->isEnabled());
  QTest::mouseClick(panel().findChild<QPushButton*>("effects.cancel"), Qt::LeftButton);
  EXPECT_FALSE(panel().running());
  EXPECT_FALSE(panel().effect());
  EXPECT_FALSE(shows("cancel"));
  EXPECT_EQ(window_->log().entries().size(), messages) << newest_message();
  measure();  // and again
}

TEST_F(EffectsWindow, RefusesTextsWithoutALoss) {
  EXPECT_NE(why_no_effect(model().checkpoint()->plan, 1).find("at least two tokens"), std::string::npos);
  window_->open_path(SWITCHYARD_SOURCE_DIR "/tests/goldens/switch_transformers");
  ASSERT_TRUE(wait_until([&] { return model().checkpoint() && model().checkpoint()->plan.encoder_layers > 0; })) << newest_message();
  EXPECT_TRUE(panel().why_not().contains("encoder-decoder")) << panel().why_not().toStdString();
  model().close();
  ASSERT_TRUE(wait_until([&] { return model().is_empty(); }));
  EXPECT_EQ(panel().why_not(), "open a model first");
}

}  // namespace
}  // namespace switchyard

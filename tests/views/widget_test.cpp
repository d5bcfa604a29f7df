// Live views as real widgets on a screen: painting on demand, real Qt input, focus, floating, failures.
#include <gtest/gtest.h>

#include <QAction>
#include <QApplication>
#include <QElapsedTimer>
#include <QLineEdit>
#include <QMainWindow>
#include <QSignalSpy>
#include <QVBoxLayout>
#include <QtTest/QTest>

#include <imgui.h>

#include "tests/views/fixture.h"
#include "views/gate_inspector/view.h"
#include "views/host/live_view_widget.h"
#include "views/routing_heatmap/view.h"

namespace switchyard {
namespace {

QWidget* canvas_of(LiveViewWidget& widget) {
  return widget.focusProxy();
}

std::unique_ptr<LiveViewWidget> shown(std::unique_ptr<View> view, const ViewSource& source, QSize size = {784, 304}) {
  auto widget = std::make_unique<LiveViewWidget>(std::move(view), source);
  widget->resize(size);
  widget->show();
  widget->activateWindow();
  EXPECT_TRUE(QTest::qWaitForWindowExposed(widget.get()));
  EXPECT_TRUE(QTest::qWaitFor([&] { return widget->stats().frames > 1; }));
  return widget;
}

QPoint middle(const Item& item) {
  return QPoint(int((item.rect.x0 + item.rect.x1) / 2), int((item.rect.y0 + item.rect.y1) / 2));
}

TEST(LiveViewWidget, AClickOnACellSelectsItThroughQtEvents) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  const auto widget = shown(std::make_unique<RoutingHeatmap>(), source);
  QTest::mouseClick(canvas_of(*widget), Qt::LeftButton, {}, middle(*widget->items().find("layer 2/expert 9")));
  EXPECT_TRUE(QTest::qWaitFor([&] { return !run->selections.empty(); }));
  EXPECT_EQ(run->selection, (Selection{2, 9, std::nullopt}));
  canvas_of(*widget)->setFocus();
  QTest::keyClick(canvas_of(*widget), Qt::Key_M);
  EXPECT_TRUE(QTest::qWaitFor([&] { return !run->edits.empty(); }));
  EXPECT_EQ(run->edits[0].edit, Edit(Mute{{{2}}, {9}}));
}

TEST(LiveViewWidget, RightClickMenuMutesThroughQtEvents) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  const auto widget = shown(std::make_unique<RoutingHeatmap>(), source);
  QTest::mouseClick(canvas_of(*widget), Qt::RightButton, {}, middle(*widget->items().find("layer 1/expert 3")));
  ASSERT_TRUE(QTest::qWaitFor([&] { return widget->items().find("menu/mute").has_value(); }));
  QTest::mouseClick(canvas_of(*widget), Qt::LeftButton, {}, middle(*widget->items().find("menu/mute")));
  EXPECT_TRUE(QTest::qWaitFor([&] { return !run->edits.empty(); }));
  EXPECT_EQ(run->edits[0].edit, Edit(Mute{{{1}}, {3}}));
}

TEST(LiveViewWidget, PaintsOnDemandAndNeverWhileHidden) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  const auto widget = shown(std::make_unique<RoutingHeatmap>(), source);
  // Nothing happens, so nothing is painted: the count comes to rest (late events of the window manager aside).
  EXPECT_TRUE(QTest::qWaitFor(
      [&] {
        const uint64_t before = widget->stats().frames;
        QTest::qWait(300);
        return widget->stats().frames == before;
      },
      20'000));
  const uint64_t quiet = widget->stats().frames;
  widget->set_max_rate(10);
  QElapsedTimer clock;
  clock.start();
  for (int i = 0; i < 200; ++i) widget->data_changed(), QTest::qWait(2);
  EXPECT_LE(double(widget->stats().frames - quiet), double(clock.elapsed()) / 100 + 2)
      << "at most 10 repaints a second, however slow the machine";
  widget->hide();
  QTest::qWait(50);
  const uint64_t hidden = widget->stats().frames;
  for (int i = 0; i < 20; ++i) widget->data_changed(), QTest::qWait(2);
  EXPECT_EQ(widget->stats().frames, hidden);
  widget->show();
  EXPECT_TRUE(QTest::qWaitFor([&] { return widget->stats().frames > hidden; }));
}

TEST(LiveViewWidget, TabLeavesTheViewAndShortcutsWorkOverIt) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  QMainWindow window;
  auto* central = new QWidget(&window);
  auto* layout = new QVBoxLayout(central);
  auto* view = new LiveViewWidget(std::make_unique<RoutingHeatmap>(), source, central);
  auto* line = new QLineEdit(central);
  layout->addWidget(view);
  layout->addWidget(line);
  window.setCentralWidget(central);
  QAction space(&window);
  space.setShortcut(Qt::Key_Space);
  window.addAction(&space);
  QSignalSpy fired(&space, &QAction::triggered);
  window.resize(700, 400);
  window.show();
  window.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&window));
  canvas_of(*view)->setFocus();
  QTest::keyClick(canvas_of(*view), Qt::Key_Space);
  EXPECT_TRUE(QTest::qWaitFor([&] { return fired.count() == 1; })) << "a plain key of the window works over a picture";
  QTest::keyClick(canvas_of(*view), Qt::Key_Tab);
  EXPECT_TRUE(QTest::qWaitFor([&] { return line->hasFocus(); }));
}

// A field inside a picture: Ctrl+click on a slider. Keys that are shortcuts of the window must reach it.
TEST(LiveViewWidget, TypingIntoAFieldBeatsShortcutsAndKeepsTab) {
  const auto run = Fixture::with_edits();
  run->selection = {5, 18, std::nullopt};
  const ViewSource source = run->source();
  QMainWindow window;
  auto* view = new LiveViewWidget(std::make_unique<GateInspector>(), source);
  window.setCentralWidget(view);
  QAction one(&window);
  one.setShortcut(Qt::Key_1);
  window.addAction(&one);
  QSignalSpy fired(&one, &QAction::triggered);
  window.resize(396, 640);
  window.show();
  window.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&window));
  ASSERT_TRUE(QTest::qWaitFor([&] { return view->items().find("slider/bias").has_value(); }));
  QWidget* canvas = canvas_of(*view);
  canvas->setFocus();
  QTest::keyClick(canvas, Qt::Key_1);
  EXPECT_TRUE(QTest::qWaitFor([&] { return fired.count() == 1; })) << "no field is open: the shortcut fires";
  QTest::mouseClick(canvas, Qt::LeftButton, Qt::ControlModifier, middle(*view->items().find("slider/bias")));
  ASSERT_TRUE(QTest::qWaitFor([&] { return ImGui::GetIO().WantTextInput; }));
  for (const char letter : {'1', '.', '5'}) {
    QTest::keyClick(canvas, letter);
    QTest::qWait(60);
  }
  QTest::keyClick(canvas, Qt::Key_Return);
  EXPECT_TRUE(QTest::qWaitFor([&] { return !run->edits.empty(); }));
  EXPECT_EQ(fired.count(), 1);
  ASSERT_FALSE(run->edits.empty());
  EXPECT_EQ(run->edits.back().edit, Edit(Bias{{{5}}, {18}, 1.5f}));
}

TEST(LiveViewWidget, TellsScreenReadersWhatIsUnderThePointer) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  const auto widget = shown(std::make_unique<RoutingHeatmap>(), source);
  EXPECT_EQ(canvas_of(*widget)->accessibleName(), "Routing");
  std::optional<Item> hovered;
  widget->on_hover = [&](const std::optional<Item>& item) { hovered = item; };
  QTest::mouseMove(canvas_of(*widget), middle(*widget->items().find("layer 5/expert 3")));
  EXPECT_TRUE(
      QTest::qWaitFor([&] { return canvas_of(*widget)->accessibleDescription().startsWith("layer 5, expert 3"); }));
  ASSERT_TRUE(hovered);
  EXPECT_EQ(hovered->id, "layer 5/expert 3");
}

TEST(LiveViewWidget, KeepsPaintingWhenItsDockIsFloatedAndDockedAgain) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  QMainWindow window;
  auto* view = new LiveViewWidget(std::make_unique<RoutingHeatmap>(), source);
  window.setCentralWidget(view);
  window.resize(700, 400);
  window.show();
  ASSERT_TRUE(QTest::qWaitFor([&] { return view->stats().frames > 1; }));
  const QImage before = view->grab_picture();
  for (int i = 0; i < 3; ++i) {
    window.takeCentralWidget();
    view->setParent(nullptr);
    view->resize(before.size());
    view->show();
    const uint64_t frames = view->stats().frames;
    EXPECT_TRUE(QTest::qWaitFor([&] { return view->stats().frames > frames; }));
    window.setCentralWidget(view);
    view->show();
    QTest::qWait(50);
  }
  EXPECT_TRUE(QTest::qWaitFor([&] { return view->grab_picture() == before; })) << "textures and fonts are there again";
}

class Broken : public RoutingHeatmap {
 public:
  void draw(const ViewContext& context) override {
    if (broken) throw std::runtime_error("no such layer");
    RoutingHeatmap::draw(context);
  }
  bool broken = true;
};

TEST(LiveViewWidget, AThrowingViewStaysAViewWithAMessageAndAButton) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  auto owned = std::make_unique<Broken>();
  Broken* view = owned.get();
  const auto widget = shown(std::move(owned), source);
  ASSERT_TRUE(widget->items().find("failure"));
  EXPECT_EQ(widget->items().find("failure")->detail, "no such layer");
  view->broken = false;
  QTest::mouseClick(canvas_of(*widget), Qt::LeftButton, {}, middle(*widget->items().find("failure/retry")));
  EXPECT_TRUE(QTest::qWaitFor([&] { return widget->items().find("layer 0/expert 0").has_value(); }));
}

TEST(LiveViewWidget, AllViewsLiveTogetherAndDieInAnyOrder) {
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  std::vector<std::unique_ptr<LiveViewWidget>> widgets;
  for (auto& view : make_builtin_views()) widgets.push_back(shown(std::move(view), source, {400, 300}));
  std::swap(widgets.front(), widgets.back());
  while (!widgets.empty()) {
    widgets.pop_back();
    run->add_tokens(1);
    for (auto& widget : widgets) {
      const uint64_t frames = widget->stats().frames;
      widget->data_changed();
      EXPECT_TRUE(QTest::qWaitFor([&] { return widget->stats().frames > frames; }));
    }
  }
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  switchyard::prepare_gl_defaults();
  QApplication app(argc, argv);
  return RUN_ALL_TESTS();
}

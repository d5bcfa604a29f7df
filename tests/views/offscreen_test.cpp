// Without OpenGL (the offscreen platform) a view is its table twin, and nothing crashes.
#include <gtest/gtest.h>

#include <QApplication>
#include <QTableView>
#include <QtTest/QTest>

#include "tests/views/fixture.h"
#include "views/host/live_view_widget.h"

namespace switchyard {
namespace {

TEST(Placeholder, ShowsTheTableTwinWhereThePlatformHasNoOpenGl) {
  ASSERT_EQ(QGuiApplication::platformName(), "offscreen");
  ASSERT_FALSE(platform_has_gl());
  const auto run = Fixture::with_edits();
  const ViewSource source = run->source();
  for (auto& view : make_builtin_views()) {
    SCOPED_TRACE(std::string(view->id()));
    LiveViewWidget widget(std::move(view), source);
    EXPECT_FALSE(widget.has_gl());
    widget.resize(600, 400);
    widget.show();
    QTest::qWait(20);
    const auto* table = widget.findChild<QTableView*>();
    ASSERT_TRUE(table);
    EXPECT_GT(table->model()->rowCount(), 10);
    EXPECT_FALSE(table->accessibleName().isEmpty());
    const int rows = table->model()->rowCount();
    run->add_tokens(1);
    widget.data_changed();
    if (widget.view().id() == "token_strip") {
      EXPECT_EQ(table->model()->rowCount(), rows + 1);
    }
    EXPECT_TRUE(widget.grab_picture().isNull());
    EXPECT_EQ(widget.items().size(), 0u);
    EXPECT_EQ(widget.stats().frames, 0u);
  }
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  QApplication app(argc, argv);
  return RUN_ALL_TESTS();
}

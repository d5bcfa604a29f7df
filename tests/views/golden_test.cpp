// Golden images: each view, dark and light, with known data on software OpenGL, anti-aliasing off.
// UPDATE_GOLDEN=1 writes them; a failure leaves picture and difference beside the test's binary folder.
#include <gtest/gtest.h>

#include <QDir>
#include <QImage>
#include <QtTest/QTest>

#include <algorithm>
#include <cstdlib>

#include "tests/views/fixture.h"
#include "views/host/live_view_widget.h"

namespace switchyard {
namespace {

QSize size_of(const std::string& id) {
  if (id == "routing_heatmap") return {520, 220};
  if (id == "gate_inspector") return {396, 560};
  if (id == "expert_load") return {420, 250};
  if (id == "affinity") return {346, 280};
  if (id == "compare") return {440, 620};
  return {760, 92};
}

// Share of pixels that differ by more than 24 of 255 in some channel.
double difference(const QImage& a, const QImage& b, QImage& map) {
  map = QImage(a.size(), QImage::Format_RGB32);
  qint64 bad = 0;
  for (int y = 0; y < a.height(); ++y)
    for (int x = 0; x < a.width(); ++x) {
      const QRgb p = a.pixel(x, y), q = b.pixel(x, y);
      const int worst =
          std::max({std::abs(qRed(p) - qRed(q)), std::abs(qGreen(p) - qGreen(q)), std::abs(qBlue(p) - qBlue(q))});
      bad += worst > 24;
      map.setPixel(x, y, worst > 24 ? qRgb(255, 0, 0) : qRgb(qGray(p) / 3, qGray(p) / 3, qGray(p) / 3));
    }
  return double(bad) / (double(a.width()) * a.height());
}

TEST(GoldenImages, ViewsLookAsTheyDid) {
  if (!QFile::exists("/usr/share/fonts/opentype/inter/Inter-Regular.otf") ||
      !QFile::exists("/usr/share/fonts/truetype/jetbrains-mono/JetBrainsMono-Regular.ttf"))
    GTEST_SKIP() << "fonts-inter and fonts-jetbrains-mono are not installed";
  const QDir goldens(SWITCHYARD_SOURCE_DIR "/tests/views/golden"), output(SWITCHYARD_BINARY_DIR);
  for (const Theme* theme : {&dark_theme(), &light_theme()}) {
    const auto run = Fixture::with_edits();
    run->theme = theme;
    run->selection = {5, 18, 20};
    run->cursor = 66;
    const ViewSource source = run->source();
    for (auto& view : make_builtin_views()) {
      const std::string id(view->id());
      const QString name = QString::fromStdString(id + "-" + theme->name + ".png");
      LiveViewWidget widget(std::move(view), source);
      widget.setWindowFlag(Qt::FramelessWindowHint);
      widget.set_anti_aliasing(false);
      widget.resize(size_of(id));
      widget.show();
      ASSERT_TRUE(QTest::qWaitFor([&] { return widget.stats().frames > 0; }));
      const QImage picture = widget.grab_picture().convertToFormat(QImage::Format_RGB32);
      if (std::getenv("UPDATE_GOLDEN")) {
        ASSERT_TRUE(picture.save(goldens.filePath(name)));
        continue;
      }
      const QImage golden = QImage(goldens.filePath(name)).convertToFormat(QImage::Format_RGB32);
      ASSERT_FALSE(golden.isNull()) << name.toStdString() << " is missing: UPDATE_GOLDEN=1 writes it";
      ASSERT_EQ(picture.size(), golden.size()) << name.toStdString();
      QImage map;
      const double share = difference(picture, golden, map);
      if (share <= 0.004) continue;
      picture.save(output.filePath("golden-now-" + name));
      map.save(output.filePath("golden-difference-" + name));
      ADD_FAILURE() << name.toStdString() << ": " << 100 * share << " % of the pixels differ; see "
                    << output.filePath("golden-difference-" + name).toStdString();
    }
  }
}

}  // namespace
}  // namespace switchyard

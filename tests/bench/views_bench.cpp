// What a repaint of a live view costs: build (input to draw commands) and paint (to finished pixels),
// p50 and p99, while new tokens arrive. Run: tests/support/with_display.sh build/dev/bin/views_bench
#include <QApplication>
#include <QTimer>

#include <cstdio>
#include <cstdlib>

#include "tests/views/fixture.h"
#include "views/host/live_view_widget.h"

using namespace switchyard;

namespace {

// Paints `frames` repaints, each with a token more, and prints one line.
void measure(std::unique_ptr<View> view, Fixture& run, QSize size, int frames) {
  const std::string id(view->id());
  const ViewSource source = run.source();
  LiveViewWidget widget(std::move(view), source);
  widget.set_measuring(true);
  widget.set_max_rate(1000);
  widget.resize(size);
  widget.show();
  while (widget.stats().frames < 3) QApplication::processEvents(QEventLoop::WaitForMoreEvents, 20);
  widget.reset_stats();
  while (widget.stats().frames < uint64_t(frames)) {
    run.add_tokens(1);
    const uint64_t before = widget.stats().frames;
    widget.data_changed();
    while (widget.stats().frames == before) QApplication::processEvents(QEventLoop::AllEvents, 20);
  }
  const FrameStats s = widget.stats();
  std::printf("%-16s %3d x %3d  %4d x %-4d  build %6.2f / %6.2f  paint %6.2f / %6.2f  both %6.2f / %6.2f ms\n",
              id.c_str(), run.shape.layers, run.shape.experts, size.width(), size.height(), s.build_p50, s.build_p99,
              s.paint_p50, s.paint_p99, s.total_p50, s.total_p99);
}

QSize dock_size(std::string_view id) {  // in a window of 1600 x 900, as the Explore layout has it
  if (id == "routing_heatmap") return {784, 304};
  if (id == "gate_inspector") return {396, 640};
  if (id == "expert_load") return {432, 296};
  if (id == "affinity") return {346, 296};
  return {1586, 92};
}

}  // namespace

int main(int argc, char** argv) {
  prepare_gl_defaults();
  QApplication app(argc, argv);
  const int frames = argc > 1 ? std::atoi(argv[1]) : 200;
  std::printf("p50 / p99 of %d repaints, one new token each; software OpenGL unless the display has better\n", frames);
  for (const FixtureShape shape :
       {FixtureShape{}, FixtureShape{.layers = 58, .experts = 256, .k = 8, .first_layer = 3}})
    for (auto& view : make_builtin_views()) {
      const auto run = Fixture::with_edits(shape);
      run->selection.expert = 1;
      const QSize size = dock_size(view->id());
      measure(std::move(view), *run, size, frames);
    }
  const auto run = Fixture::with_edits({.layers = 58, .experts = 256, .k = 8, .first_layer = 3});
  measure(std::move(make_builtin_views()[0]), *run, {1600, 900}, frames);
  return 0;
}

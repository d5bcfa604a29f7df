// Runs the tests inside one QApplication, with settings, state and documents in a folder of their own.
#include <cstdlib>

#include "app/gui/style.h"
#include "tests/gui/support.h"
#include "views/host/live_view_widget.h"

int main(int argc, char** argv) {
  const switchyard::TemporaryFolder home;
  for (const char* name : {"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"})
    ::setenv(name, home.path().c_str(), 1);
  ::setenv("SWITCHYARD_ASSETS", SWITCHYARD_SOURCE_DIR "/assets", 1);
  switchyard::prepare_gl_defaults();
  QApplication app(argc, argv);
  switchyard::apply_theme(app, switchyard::theme_by_name("dark"));
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

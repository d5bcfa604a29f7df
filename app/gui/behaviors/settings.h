// This machine's window state: $XDG_CONFIG_HOME/switchyard/window.ini, with a version. A file of another
// version or a broken one counts as absent. GUI thread.
#pragma once

#include <memory>

#include <QSettings>

namespace switchyard {

std::unique_ptr<QSettings> window_settings();

}  // namespace switchyard

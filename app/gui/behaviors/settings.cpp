// Opening the settings file. GUI thread.
#include "app/gui/behaviors/settings.h"

namespace switchyard {
namespace {

constexpr int kVersion = 1;

}  // namespace

std::unique_ptr<QSettings> window_settings() {
  auto settings = std::make_unique<QSettings>(QSettings::IniFormat, QSettings::UserScope, "switchyard", "window");
  if (settings->value("version", kVersion).toInt() != kVersion || settings->status() != QSettings::NoError)
    settings->clear();
  settings->setValue("version", kVersion);
  return settings;
}

}  // namespace switchyard

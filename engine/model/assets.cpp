// Where assets/ is: for the demo model, prompts, help and themes.
#include <cstdlib>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/checkpoint.h"

namespace switchyard {

namespace fs = std::filesystem;

Result<fs::path> find_assets() {
  std::error_code error;
  const auto holds_assets = [&](const fs::path& folder) { return fs::is_directory(folder / "models", error); };
  if (const char* chosen = std::getenv("SWITCHYARD_ASSETS"); chosen && *chosen) {
    if (holds_assets(chosen)) return fs::path(chosen);
    return fail(ErrorCode::kNotFound, "holds no models folder.", printable(chosen, 400),
                "SWITCHYARD_ASSETS must name the assets folder.");
  }
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share" / "switchyard";
  for (const fs::path& folder : {installed, fs::path(SWITCHYARD_SOURCE_ASSETS)})
    if (holds_assets(folder)) return folder;
  return fail(ErrorCode::kNotFound,
              fmt::format("the assets are neither in {} nor in {}.", printable(installed.string(), 400),
                          SWITCHYARD_SOURCE_ASSETS),
              {}, "Set SWITCHYARD_ASSETS to the assets folder.");
}

}  // namespace switchyard

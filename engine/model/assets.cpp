// Where assets/ is: for the demo model, prompts, help and themes.
#include <cstdlib>

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
  // Beside bin/, in the build tree (a link to the source tree's) as in an installed one.
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path folder = program.parent_path().parent_path() / "share" / "switchyard";
  if (holds_assets(folder)) return folder;
  return fail(ErrorCode::kNotFound, "the assets (demo model, help, themes) are not there.", printable(folder.string(), 400),
              "Install the program again, or set SWITCHYARD_ASSETS to the assets folder.");
}

}  // namespace switchyard

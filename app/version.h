// What this program is, for `switchyard --version`, `switchyard-gui --version` and bug reports. Any thread.
#pragma once

#include <string>

namespace switchyard {

// "switchyard 0.1.0", then a line each: commit, build, backends and modules with what is missing, numbers of the contracts.
std::string version_text();

}  // namespace switchyard

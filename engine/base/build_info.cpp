// See build_info.h. The commit comes from a unit that the build writes (cmake/write_commit.cmake).
#include "engine/base/build_info.h"

namespace switchyard {

extern const char* const kBuildCommit;

const BuildInfo& build_info() {
  static const BuildInfo info{SWITCHYARD_VERSION, kBuildCommit, SWITCHYARD_BUILD_TYPE, SWITCHYARD_COMPILER};
  return info;
}

}  // namespace switchyard

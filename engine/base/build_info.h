// What this program is: for --version, bug reports and the provenance of reports. Link switchyard_build_info. Any thread.
#pragma once

namespace switchyard {

struct BuildInfo {
  const char* version;   // "0.1.0"
  const char* commit;    // "0b25a06f31c2", followed by " with changes" where the tree had some; "unknown": built without git
  const char* type;      // "Release", "Dev", and the sanitizers if any
  const char* compiler;  // "GNU 12.2.0"
};

const BuildInfo& build_info();

}  // namespace switchyard

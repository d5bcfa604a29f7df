// What a library may change of the whole process behind everybody's back: locale, working folder, descriptors 0 to 2,
// signal handlers, floating-point environment. Taken before a plugin's code runs, compared and put back behind it. Any
// thread; the floating-point part is of the calling thread.
#pragma once

#include <array>
#include <cfenv>
#include <csignal>
#include <string>
#include <vector>

#include "engine/base/folder.h"

namespace switchyard {

class ProcessEnvironment {
 public:
  static ProcessEnvironment now();
  // What differs, in words ("the locale (C to de_DE.UTF-8)"), and is put back.
  std::vector<std::string> restore() const;

 private:
  struct Place {
    unsigned long long device = 0, inode = 0;
    int open = 0;
    bool operator==(const Place&) const = default;
  };
  static Place place_of(int descriptor);
  static constexpr int kSignals = 32;

  std::string locale_;
  Descriptor folder_;                 // the working folder
  std::array<Descriptor, 3> copies_;  // of descriptors 0 to 2
  std::array<Place, 3> places_{};
  Place folder_place_;
  std::array<struct sigaction, kSignals> actions_{};
  fenv_t floats_{};
  unsigned float_control_ = 0;
};

}  // namespace switchyard

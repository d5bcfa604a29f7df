// What other programs use of the machine, from /proc/stat less our own: no claim should be made from timings taken
// beside more than kNoise of it. Any thread; each object on its own.
#pragma once

#include <chrono>

namespace switchyard {

inline constexpr double kNoise = 0.03;  // of the machine

class OtherLoad {
 public:
  OtherLoad();
  double share() const;  // 0 to 1, of all cores, since construction

 private:
  double busy_, own_;  // seconds of processor time
  std::chrono::steady_clock::time_point start_;
};

// Waits until others used less than kNoise for half a second, at most `seconds`; whether it came to that.
bool wait_for_quiet(double seconds);

}  // namespace switchyard

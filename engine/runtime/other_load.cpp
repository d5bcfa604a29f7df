// See other_load.h.
#include "engine/runtime/other_load.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <thread>

#include <sys/resource.h>
#include <unistd.h>

namespace switchyard {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double busy_seconds() {
  std::ifstream file("/proc/stat");
  std::string label;
  std::array<double, 8> ticks{};  // user nice system idle iowait irq softirq steal
  file >> label;
  for (double& tick : ticks) file >> tick;
  return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7]) / double(sysconf(_SC_CLK_TCK));
}

double own_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

OtherLoad::OtherLoad() : busy_(busy_seconds()), own_(own_seconds()), start_(std::chrono::steady_clock::now()) {}

double OtherLoad::share() const {
  const double wall = seconds_since(start_) * double(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  return wall <= 0 ? 0 : std::max(0.0, (busy_seconds() - busy_ - (own_seconds() - own_)) / wall);
}

bool wait_for_quiet(double seconds) {
  const auto start = std::chrono::steady_clock::now();
  do {
    const OtherLoad load;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    if (load.share() < kNoise) return true;
  } while (seconds_since(start) < seconds);
  return false;
}

}  // namespace switchyard

// What benchmarks of paired runs report: tokens a second beside the processor time of one.
#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace switchyard {

struct Speed {
  double tokens_per_s = 0;
  double cpu_us = 0;  // processor time of the program per token, all threads: what a loaded machine still tells truly
};

inline double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}

// Of an even number the higher of the two in the middle.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace switchyard

// Work on hostile input that may loop, exhaust memory or crash: done in a forked child with limits, its text comes
// back through a pipe. Called from any thread; blocks until the child has ended.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "engine/base/result.h"

namespace switchyard {

struct GuardLimits {
  unsigned cpu_seconds = 2;
  std::chrono::milliseconds wall{20'000};  // on a busy machine
  size_t memory = size_t{512} << 20;       // beyond what the program has
  size_t output = size_t{8} << 20;
};

// what: the subject of error messages ("the chat template"). work must not take locks that other threads hold.
// kMalformed where the child exceeds a limit or dies; the error that `work` returns otherwise.
Result<std::string> run_guarded(const std::string& what, const std::string& where, const GuardLimits& limits,
                                const std::function<Result<std::string>()>& work);

}  // namespace switchyard

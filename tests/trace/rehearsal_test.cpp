// The child process in which a file is read first: what it finds comes back, what it suffers does not.
#include "engine/trace/rehearsal.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include <gtest/gtest.h>

namespace switchyard::testing {
namespace {

TEST(Rehearsal, WhatTheWorkGivesComesBackWhole) {
  EXPECT_TRUE(rehearse("a.h5", [] { return Result<void>{}; }));
  const auto refused = rehearse("a.h5", []() -> Result<void> {
    return fail(ErrorCode::kUsage, "is wrong: é.", "somewhere", std::string(5000, 'x'));
  });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_EQ(refused.error().what, "is wrong: é.");
  EXPECT_EQ(refused.error().where, "somewhere");
  EXPECT_EQ(refused.error().hint.substr(0, 900), std::string(900, 'x'));  // cut, not lost
}

TEST(Rehearsal, ACrashNamesTheFileAndTheSignal) {
  const auto crashed = rehearse("a.h5", []() -> Result<void> {
    raise(SIGSEGV);
    return {};
  });
  ASSERT_FALSE(crashed);
  EXPECT_EQ(crashed.error().code, ErrorCode::kMalformed);
  EXPECT_EQ(crashed.error().message(),
            "a.h5: is damaged: the HDF5 library does not survive reading it (signal 11). "
            "It was read in a process of its own; nothing else is affected.");
  const auto left = rehearse("a.h5", []() -> Result<void> { _exit(3); });
  ASSERT_FALSE(left);
  EXPECT_NE(left.error().what.find("exit status 3"), std::string::npos);
}

TEST(Rehearsal, TheChildMayTakeFourGibibytesMore) {
  const auto takes = [](size_t gibibytes) {
    return rehearse("a.h5", [gibibytes]() -> Result<void> {
      if (mmap(nullptr, gibibytes << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return fail(ErrorCode::kMemory, "no.");
      return {};
    });
  };
  EXPECT_TRUE(takes(3));
  EXPECT_FALSE(takes(5));
}

TEST(Rehearsal, CancellingEndsTheChild) {
  Task task;
  std::thread user([&task] {
    while (task.step().empty()) std::this_thread::yield();
    task.cancel();
  });
  const auto stopped = rehearse("a.h5", []() -> Result<void> {
    for (;;) pause();
  }, &task);
  user.join();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace switchyard::testing

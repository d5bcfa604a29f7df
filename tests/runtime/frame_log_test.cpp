// The frame log: indices stay, memory stays bounded.
#include <gtest/gtest.h>

#include "engine/runtime/frame_log.h"

namespace switchyard {
namespace {

RoutingFrame frame_of(uint64_t token) {
  RoutingFrame frame(2, 8, 2, CaptureLevel::kLogits);
  frame.header().token_index = token;
  return frame;
}

TEST(FrameLog, KeepsFramesByTheirIndex) {
  FrameLog log;
  for (uint64_t t = 0; t < 10; ++t) log.append(frame_of(t));
  EXPECT_EQ(log.size(), 10u);
  EXPECT_EQ(log.first_kept(), 0u);
  EXPECT_EQ(log.at(7)->header().token_index, 7u);
  EXPECT_EQ(log.at(10), nullptr);
  EXPECT_EQ(log.range(3, 6).size(), 3u);
  EXPECT_EQ(log.range(8, 100).back()->header().token_index, 9u);
  EXPECT_TRUE(log.range(5, 5).empty());
  EXPECT_TRUE(log.range(20, 30).empty());
}

TEST(FrameLog, LetsTheOldestGoWhenTheBudgetIsSpent) {
  const size_t one = frame_of(0).memory_bytes();
  FrameLog log(4 * one + one / 2);
  for (uint64_t t = 0; t < 100; ++t) log.append(frame_of(t));
  EXPECT_EQ(log.size(), 100u);
  EXPECT_EQ(log.first_kept(), 96u);
  EXPECT_EQ(log.at(95), nullptr);
  EXPECT_EQ(log.range(0, 100).front()->header().token_index, 96u);
}

TEST(FrameLog, KeepsTheNewestFrameWhateverTheBudget) {
  FrameLog log(1);
  log.append(frame_of(0));
  log.append(frame_of(1));
  ASSERT_NE(log.at(1), nullptr);
  EXPECT_EQ(log.first_kept(), 1u);
}

}  // namespace
}  // namespace switchyard

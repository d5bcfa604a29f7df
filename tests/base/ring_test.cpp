// The ring between engine and recorder: order, back-pressure, drops, and closing while somebody waits.
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "engine/base/ring.h"

namespace switchyard {
namespace {

using std::chrono::steady_clock;
const auto kLong = std::chrono::seconds(30);

TEST(Ring, HandsOverEverythingInOrderWhileTheProducerWaitsForRoom) {
  Ring<int> ring(8, 4);
  constexpr int kCount = 20'000;
  std::thread producer([&] {
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(ring.push(i));
    ring.close();
  });
  int expected = 0;
  for (;;) {
    const size_t waiting = ring.wait(steady_clock::now() + kLong);
    for (size_t i = 0; i < waiting; ++i) ASSERT_EQ(ring.at(i), expected++);
    ring.pop(waiting);
    if (waiting == 0 && ring.closed()) break;
  }
  producer.join();
  EXPECT_EQ(expected, kCount);
}

TEST(Ring, TryPushRefusesWhenFullAndWorksAgainAfterPop) {
  Ring<int> ring(2, 2);
  EXPECT_TRUE(ring.try_push(1));
  EXPECT_TRUE(ring.try_push(2));
  EXPECT_FALSE(ring.try_push(3));
  EXPECT_EQ(ring.wait(steady_clock::now()), 2u);
  ring.pop(1);
  EXPECT_TRUE(ring.try_push(4));
  EXPECT_EQ(ring.wait(steady_clock::now()), 2u);
  EXPECT_EQ(ring.at(0), 2);
  EXPECT_EQ(ring.at(1), 4);
}

TEST(Ring, CloseReleasesAProducerThatWaitsForRoom) {
  Ring<int> ring(1, 1);
  ASSERT_TRUE(ring.push(1));
  std::thread producer([&] { EXPECT_FALSE(ring.push(2)); });
  ring.close();
  producer.join();
  EXPECT_EQ(ring.wait(steady_clock::now()), 1u) << "what was accepted stays readable";
  EXPECT_FALSE(ring.try_push(3));
}

TEST(Ring, AFullRingWakesAConsumerThatWaitsForMore) {
  Ring<int> ring(2, 100);  // wake_at can never be reached
  std::thread consumer([&] {
    int seen = 0;
    while (seen < 3) {
      const size_t waiting = ring.wait(steady_clock::now() + (seen < 2 ? kLong : std::chrono::seconds(0)));
      ring.pop(waiting);
      seen += static_cast<int>(waiting);
    }
  });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ring.push(i));
  consumer.join();
}

}  // namespace
}  // namespace switchyard

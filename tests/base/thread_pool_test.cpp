// The thread pool: every part once, on any number of threads, also when it is resized or the machine is busy.
#include "engine/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

namespace switchyard {
namespace {

TEST(ThreadPool, RunsEveryPartOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    for (const int parts : {0, 1, 2, 7, 100}) {
      std::vector<std::atomic<int>> runs(parts);
      pool.run(parts, [&](int part, int worker) {
        ASSERT_GE(worker, 0);
        ASSERT_LT(worker, threads);
        runs[part].fetch_add(1);
      });
      for (const auto& count : runs) EXPECT_EQ(count.load(), 1);
    }
  }
}

TEST(ThreadPool, WorkerNumbersAreNeverSharedAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<int> clashes{0};
  for (int i = 0; i < 200; ++i)
    pool.run(16, [&](int, int worker) {
      if (busy[worker].fetch_add(1) != 0) clashes.fetch_add(1);
      busy[worker].fetch_sub(1);
    });
  EXPECT_EQ(clashes.load(), 0);
}

TEST(ThreadPool, SeesWhatEarlierRunsWrote) {
  ThreadPool pool(3);
  std::vector<int64_t> values(999, 1), next(999);
  for (int step = 0; step < 2000; ++step) {
    pool.run(9, [&](int part, int) {
      const RowRange rows = split_rows(999, 9, part);
      for (int64_t i = rows.begin; i < rows.end; ++i) next[i] = values[(i + 111) % 999] + 1;
    });
    std::swap(values, next);
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t(0)), 999 * 2001);
}

TEST(ThreadPool, ResizesBetweenRuns) {
  ThreadPool pool(1);
  for (const int threads : {4, 2, 7, 1, 3}) {
    pool.resize(threads);
    EXPECT_EQ(pool.threads(), threads);
    std::atomic<int> sum{0};
    pool.run(50, [&](int part, int) { sum.fetch_add(part); });
    EXPECT_EQ(sum.load(), 49 * 50 / 2);
  }
  pool.resize(0);
  EXPECT_EQ(pool.threads(), available_cores());
}

TEST(ThreadPool, SleepingWorkersWakeForTheNextRun) {
  ThreadPool pool(2);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than any spinning
    std::atomic<int> runs{0};
    pool.run(2, [&](int, int) { runs.fetch_add(1); });
    EXPECT_EQ(runs.load(), 2);
  }
}

TEST(SplitRows, CoversAllRowsInOrderOnTheMultiple) {
  for (const int64_t rows : {0, 1, 5, 16, 17, 1000})
    for (const int parts : {1, 2, 3, 7})
      for (const int64_t multiple : {1, 4, 16}) {
        int64_t next = 0;
        for (int part = 0; part < parts; ++part) {
          const RowRange range = split_rows(rows, parts, part, multiple);
          EXPECT_EQ(range.begin, next);
          EXPECT_GE(range.end, range.begin);
          if (range.end != rows) {
            EXPECT_EQ(range.end % multiple, 0);
          }
          next = range.end;
        }
        EXPECT_EQ(next, rows);
      }
}

}  // namespace
}  // namespace switchyard

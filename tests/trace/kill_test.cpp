// A recorder killed at any moment loses no committed token: 50 kills (packaging/test.sh --full: 200), half of them in one long recording,
// half among short ones where creating, closing and renaming fill most of the time.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>

#include "engine/trace/provenance.h"
#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;

// Runs the recorder until its first report and that much longer, kills it, and returns the last committed count reported for each file.
std::map<int, uint64_t> record_and_kill(const fs::path& folder, uint64_t tokens, std::chrono::milliseconds life) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], STDOUT_FILENO);
    const std::string count = std::to_string(tokens);
    execl(RECORD_SYNTHETIC, RECORD_SYNTHETIC, folder.c_str(), count.c_str(), nullptr);
    _exit(127);
  }
  close(pipe_ends[1]);
  std::string reports;
  std::promise<void> reported;
  std::thread reader([&] {
    char buffer[4096];
    for (ssize_t got; (got = read(pipe_ends[0], buffer, sizeof buffer)) > 0;) {
      if (reports.empty()) reported.set_value();
      reports.append(buffer, size_t(got));
    }
  });
  EXPECT_EQ(reported.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready) << "nothing was committed";
  std::this_thread::sleep_for(life);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  reader.join();
  close(pipe_ends[0]);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the recorder ended by itself with status " << status;
  std::map<int, uint64_t> committed;
  std::istringstream lines(reports);
  for (int file; lines >> file;) lines >> committed[file];
  return committed;
}

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Tally {
  int parts = 0, parts_with_tokens = 0, complete = 0, unborn = 0;
  uint64_t tokens = 0, beyond_report = 0;
};

void check_part(const fs::path& part, uint64_t reported, const fs::path& target, Tally& tally) {
  ++tally.parts;
  const std::string before = sha256_of_text(content_of(part));
  const auto reader = TraceReader::open(part);
  if (!reader) {
    EXPECT_EQ(reported, 0u) << part << ": " << reader.error().message();
    ++tally.unborn;  // killed before the schema was on disk
    return;
  }
  const uint64_t tokens = (*reader)->info().tokens;
  EXPECT_GE(tokens, reported) << part;
  EXPECT_EQ(synthetic_difference(**reader, {}), "") << part;
  tally.tokens += tokens;
  tally.beyond_report += tokens - reported;
  tally.parts_with_tokens += tokens > 0;

  const auto report = recover_trace(part, target, false);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_TRUE(report->problems.empty()) << report->problems[0];
  EXPECT_TRUE(report->info.complete);
  EXPECT_EQ(report->info.tokens, tokens);
  const auto recovered = TraceReader::open(target);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(synthetic_difference(**recovered, {}), "");
  EXPECT_EQ(sha256_of_text(content_of(part)), before) << "recovering must not touch its source";
}

void check_complete(const fs::path& path, uint64_t tokens, Tally& tally) {
  ++tally.complete;
  const auto reader = TraceReader::open(path);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_TRUE((*reader)->info().complete);
  EXPECT_EQ((*reader)->info().tokens, tokens);
  EXPECT_EQ(synthetic_difference(**reader, {}), "") << path;
}

// Of each kind.
int kills() { return std::getenv("SWITCHYARD_FULL") ? 100 : 25; }

Tally kill_many(int kills, uint64_t tokens, int shortest_ms, int longest_ms) {
  std::random_device device;
  const unsigned seed = device();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  Tally tally;
  for (int i = 0; i < kills && !::testing::Test::HasFailure(); ++i) {
    const Folder folder;
    const auto life = std::chrono::milliseconds(std::uniform_int_distribution<int>(shortest_ms, longest_ms)(random));
    const auto committed = record_and_kill(folder.path(), tokens, life);
    for (int file = 0;; ++file) {
      const fs::path path = folder / (std::to_string(file) + ".moetrace.h5"), part = path.string() + ".part";
      const auto found = committed.find(file);
      const uint64_t reported = found == committed.end() ? 0 : found->second;
      if (fs::exists(path)) {
        check_complete(path, tokens, tally);
        EXPECT_FALSE(fs::exists(part));
      } else if (fs::exists(part)) {
        check_part(part, reported, path, tally);  // recovered to the name that it was to have
        break;
      } else {
        EXPECT_EQ(reported, 0u) << "a file that reported tokens is gone";
        break;
      }
    }
  }
  std::cout << kills << " kills: " << tally.complete << " complete files, " << tally.parts << " .part (" << tally.parts_with_tokens
            << " with tokens, " << tally.unborn << " killed before the schema was written), " << tally.tokens
            << " tokens read back, " << tally.beyond_report << " of them beyond the last report" << std::endl;
  return tally;
}

TEST(Kill, ALongRecordingKeepsEveryCommittedToken) {
  const Tally tally = kill_many(kills(), UINT64_MAX, 0, 700);
  EXPECT_EQ(tally.parts_with_tokens, kills()) << "every kill hits a recording under way";
}

TEST(Kill, ShortRecordingsAreWholeOrRecoverable) {
  const Tally tally = kill_many(kills(), 120, 0, 700);
  EXPECT_GE(tally.complete + tally.parts, kills());
}

}  // namespace
}  // namespace switchyard::testing

// The installed program as a process: screenshots, exit codes, kills, signals.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <thread>

#include <gtest/gtest.h>

#include "app/session/journal.h"
#include "engine/trace/trace.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "switchyard-process-XXXXXX").string();
    home_ = ::mkdtemp(name.data());
    for (const char* variable : {"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"})
      ::setenv(variable, home_.c_str(), 1);
  }
  void TearDown() override { fs::remove_all(home_); }

  pid_t start(const std::vector<std::string>& arguments) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    std::vector<char*> argv{const_cast<char*>(SWITCHYARD_GUI_PROGRAM)};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    if (!::freopen((home_ / "stderr.txt").c_str(), "a", stderr)) ::_exit(126);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

  // Exit code; 128 + signal when killed; -1 when it did not end in time.
  int wait_for(pid_t child, int seconds) {
    for (int i = 0; i < seconds * 20; ++i) {
      int status = 0;
      if (::waitpid(child, &status, WNOHANG) == child)
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return -1;
  }

  int run(const std::vector<std::string>& arguments) { return wait_for(start(arguments), 120); }

  // A key for the newest window of the program.
  void press(pid_t child, const std::string& key) {
    const std::string pid = std::to_string(child);
    const std::string command = "w=$(xdotool search --onlyvisible --pid " + pid + " | tail -1); " +
                                "xdotool windowactivate --sync $w key " + key + " 2>/dev/null";
    [[maybe_unused]] const int code = std::system(command.c_str());
  }

  template <class Done>
  bool wait_until(Done done, int seconds = 60) {
    for (int i = 0; i < seconds * 20; ++i) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  fs::path home_;
};

TEST_F(Program, ScreenshotAndTraceOfTheDemo) {
  const fs::path picture = home_ / "a.png", trace = home_ / "a.moetrace.h5";
  ASSERT_EQ(run({"demo", "--screenshot", picture, "--after-tokens", "16", "--trace", trace, "--size", "1280x720"}), 0);
  std::ifstream in(picture, std::ios::binary);
  std::string head(24, '\0');
  in.read(head.data(), 24);
  EXPECT_EQ(head.substr(1, 3), "PNG");
  EXPECT_EQ(uint8_t(head[18]) << 8 | uint8_t(head[19]), 1280);  // width and height of IHDR
  EXPECT_EQ(uint8_t(head[22]) << 8 | uint8_t(head[23]), 720);
  const auto verified = verify_trace(trace);
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_TRUE(verified->problems.empty());
  EXPECT_TRUE(verified->info.complete);
  EXPECT_EQ(verified->info.dropped, 0u);
  EXPECT_FALSE(fs::exists(trace.string() + ".part"));

  std::ifstream told(home_ / "stderr.txt");
  const std::string text((std::istreambuf_iterator<char>(told)), {});
  static const std::regex line(
      "frames: p50 [0-9.]+ p99 [0-9.]+ ms over [0-9]+, whole window 1280 x 720; [0-9]+ tokens/s, .+\\n");
  EXPECT_TRUE(std::regex_search(text, line)) << text;
}

TEST_F(Program, FailuresEndWithTheirCode) {
  EXPECT_EQ(run({"--no-such-option"}), 2);
  EXPECT_EQ(run({"--after-tokens", "many"}), 2);
  EXPECT_EQ(run({"/no/such/model", "--screenshot", home_ / "x.png"}), int(ErrorCode::kNotFound));
  EXPECT_EQ(run({"demo", "--screenshot", home_ / "none" / "x.png", "--after-tokens", "2"}), int(ErrorCode::kOutput));
  EXPECT_EQ(run({"demo", "--screenshot", home_ / "x.png", "--prompt-file", home_ / "none.txt"}),
            int(ErrorCode::kNotFound));
  EXPECT_EQ(run({"--version"}), 0);
}

TEST_F(Program, TermClosesCleanly) {
  const pid_t child = start({"demo"});
  ASSERT_TRUE(
      wait_until([&] { return fs::exists(home_ / "switchyard" / ("journal-" + std::to_string(child) + ".jsonl")); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  ::kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child, 120), 143);
  EXPECT_TRUE(orphaned_journals(home_ / "switchyard").empty());
}

// Killed while generating and recording: the next start offers edits and trace, and Enter brings both back.
TEST_F(Program, KilledRunIsRestoredAndItsTraceRecovered) {
  const fs::path trace = home_ / "run.moetrace.h5", recovered = home_ / "run.recovered.moetrace.h5";
  const fs::path prompt = home_ / "prompt.txt";
  std::ofstream(prompt) << "The function below adds two numbers.";
  pid_t child = start({"demo", "--trace", trace, "--prompt-file", prompt});
  const fs::path journal = home_ / "switchyard" / ("journal-" + std::to_string(child) + ".jsonl");
  ASSERT_TRUE(wait_until([&] {
    const auto read = read_journal(journal);
    return read && read->recording == trace;
  }));
  const auto recorded = [&] {
    const auto reader = TraceReader::open(trace.string() + ".part");
    return reader && (*reader)->info().tokens > 20;
  };
  for (int i = 0; i < 10 && !recorded(); ++i) {  // a key may come before the window has the keyboard
    press(child, "ctrl+Return");
    wait_until(recorded, 4);
  }
  ASSERT_TRUE(recorded());
  ::kill(child, SIGKILL);
  EXPECT_EQ(wait_for(child, 120), 137);
  EXPECT_FALSE(fs::exists(trace));
  ASSERT_EQ(orphaned_journals(home_ / "switchyard"), std::vector<fs::path>{journal});

  child = start({"demo"});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  for (int i = 0; i < 20 && !fs::exists(recovered); ++i) {
    press(child, "Return");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  ASSERT_TRUE(wait_until([&] { return fs::exists(recovered); }));
  EXPECT_TRUE(wait_until([&] { return !fs::exists(journal); }));
  ::kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child, 120), 143);
  const auto verified = verify_trace(recovered);
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_TRUE(verified->problems.empty());
  EXPECT_GT(verified->info.tokens, 20u);
  EXPECT_TRUE(fs::exists(trace.string() + ".part"));  // stays until the user removes it
}

}  // namespace
}  // namespace switchyard

// Disks that fill up and folders that refuse: the error says so, what was committed stays readable, and
// nothing else is left behind.
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/trace/synthetic.h"

// libhdf5 1.10 loses some names and a buffer each time a file cannot be closed properly; only these tests make it.
#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5_serial\n"; }
#endif

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const SyntheticShape kShape{4, 32, 4, CaptureLevel::kLogits, 1000, 300};

// What became of a recording that was to hold `tokens` tokens.
struct Attempt {
  bool created = false, complete = false;
  std::string message;
  ErrorCode code{};
  uint64_t committed = 0;
};

Attempt attempt(const fs::path& path, uint64_t tokens) {
  RecorderOptions options;
  options.flush_seconds = 0.01;
  options.ring_frames = 64;
  Attempt result;
  const auto note = [&](const Error& error) {
    if (result.message.empty()) result.message = error.message(), result.code = error.code;
  };
  auto recorder = TraceRecorder::create(path, synthetic_header(kShape), options);
  if (!recorder) {
    note(recorder.error());
    return result;
  }
  result.created = true;
  for (uint64_t token = 0; token < tokens; ++token) {
    if (const auto appended = append_synthetic(**recorder, kShape, token); !appended) {
      note(appended.error());
      break;
    }
    // A fast machine would append everything before the first flush: give it the time to commit once.
    if (token == tokens / 3)
      for (int wait = 0; wait < 20 && (*recorder)->committed_tokens() == 0; ++wait) usleep(5000);
  }
  const auto closed = (*recorder)->close();
  if (!closed) note(closed.error());
  result.complete = closed.has_value();
  result.committed = (*recorder)->committed_tokens();
  return result;
}

// The file of a failed attempt: a .part with all committed tokens, right, and recoverable elsewhere.
void expect_safe(const fs::path& path, const Attempt& attempt, const fs::path& elsewhere) {
  EXPECT_EQ(attempt.code, ErrorCode::kOutput) << attempt.message;
  EXPECT_FALSE(fs::exists(path));
  const fs::path part = path.string() + ".part";
  if (!attempt.created) {
    EXPECT_FALSE(fs::exists(part)) << "a recording that never began leaves nothing";
    return;
  }
  const auto reader = TraceReader::open(part);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_GE((*reader)->info().tokens, attempt.committed);
  EXPECT_EQ(synthetic_difference(**reader, kShape), "");
  const auto recovered = recover_trace(part, elsewhere, true);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_THAT(recovered->problems, ::testing::IsEmpty());
  EXPECT_EQ(recovered->info.tokens, (*reader)->info().tokens);
}

// Writes fail from a certain size on (EFBIG), wherever that falls: in the schema, in the rows, in the close.
TEST(Fault, AWriteThatFailsAnywhereLeavesASafeFile) {
  const Folder folder;
  const fs::path path = folder / "a.moetrace.h5";
  constexpr uint64_t kTokens = 1500;
  ASSERT_TRUE(attempt(path, kTokens).complete);
  const uint64_t full = fs::file_size(path);
  fs::remove(path);
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  int failed = 0, with_tokens = 0, unborn = 0;
  std::vector<uint64_t> sizes;
  for (uint64_t size = 512; size < 100'000; size = size * 5 / 4) sizes.push_back(size);
  for (int step = 1; step <= 20; ++step) sizes.push_back(full * step / 20);
  for (const uint64_t size : sizes) {
    SCOPED_TRACE("limit " + std::to_string(size) + " of " + std::to_string(full));
    const rlimit limit{size, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    const Attempt result = attempt(path, kTokens);
    setrlimit(RLIMIT_FSIZE, &old);
    if (result.complete) {
      EXPECT_EQ(synthetic_difference(**TraceReader::open(path), kShape), "");
    } else {
      ++failed;
      unborn += !result.created;
      with_tokens += result.committed > 0;
      EXPECT_THAT(result.message, HasSubstr("File too large"));
      expect_safe(path, result, folder / "saved.moetrace.h5");
    }
    fs::remove(path);
    fs::remove(path.string() + ".part");
  }
  std::cout << sizes.size() << " limits: " << unborn << " failed at the schema, " << failed - unborn << " later, " << with_tokens
            << " of them after a commit" << std::endl;
  EXPECT_GT(unborn, 0);
  EXPECT_GT(with_tokens, 0);
}

// A small file system of its own, unmounted at the end; not everybody may mount.
class SmallDisk {
 public:
  explicit SmallDisk(const char* options) : mounted_(mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options) == 0) {}
  ~SmallDisk() {
    if (mounted_) umount2(folder_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  bool make_read_only() const { return mount("tmpfs", folder_.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0; }
  fs::path operator/(const std::string& name) const { return folder_ / name; }

 private:
  Folder folder_;
  bool mounted_;
};

TEST(Fault, AFullDiskStopsTheRecordingAndKeepsWhatWasCommitted) {
  const Folder elsewhere;
  for (const char* size : {"size=64k", "size=256k", "size=1m", "size=4m"}) {
    SCOPED_TRACE(size);
    const SmallDisk disk(size);
    if (!disk.mounted()) GTEST_SKIP() << "this user may not mount a tmpfs";
    const Attempt result = attempt(disk / "a.moetrace.h5", 20'000);
    ASSERT_FALSE(result.complete);
    EXPECT_THAT(result.message, HasSubstr("No space left on device"));
    EXPECT_THAT(result.message, HasSubstr("bytes are free there"));
    EXPECT_EQ(result.committed > 0, result.message.find("tokens are safe in it: switchyard trace recover.") != std::string::npos) << result.message;
    expect_safe(disk / "a.moetrace.h5", result, elsewhere / "saved.moetrace.h5");
  }
}

TEST(Fault, AReadOnlyFolderIsRefusedAndNamed) {
  const SmallDisk disk("size=64k");
  if (!disk.mounted() || !disk.make_read_only()) GTEST_SKIP() << "this user may not mount a tmpfs";
  const Attempt result = attempt(disk / "a.moetrace.h5", 10);
  EXPECT_FALSE(result.created);
  EXPECT_THAT(result.message, HasSubstr("a.moetrace.h5.part: could not be created: Read-only file system."));
}

}  // namespace
}  // namespace switchyard::testing

// Guarded mappings: a file that is cut while mapped gives an error, not a dead process (formats.md, section 3.6).
#include "engine/base/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr size_t kPages = 8;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() { put_file(path_, std::string(kPages * page_, 'x')); }
  std::shared_ptr<const MappedFile> mapped() {
    return *MappedFile::map(*Folder::open(folder_.path())->open_file("w.bin"));
  }

  const size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "w.bin";
};

// ThreadSanitizer takes the zero pages that the handler maps for a write to what others read; that is their purpose.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize_thread))
#endif
char at(const MappedFile& file, size_t byte) {
  return static_cast<char>(*(const volatile std::byte*)&file.bytes()[byte]);
}

TEST_F(MappedFileTest, HoldsTheBytesOfTheFile) {
  const auto file = mapped();
  EXPECT_EQ(file->bytes().size(), kPages * page_);
  EXPECT_EQ(at(*file, kPages * page_ - 1), 'x');
  EXPECT_TRUE(file->check_unchanged());
}

TEST_F(MappedFileTest, AnEmptyFileIsAnEmptyMapping) {
  put_file(path_, "");
  const auto file = mapped();
  EXPECT_TRUE(file->bytes().empty());
  EXPECT_TRUE(file->check_unchanged());
}

TEST_F(MappedFileTest, ReadingBehindACutGivesZerosAndAnErrorThatNamesTheFile) {
  const auto file = mapped();
  fs::resize_file(path_, 2 * page_);
  EXPECT_EQ(at(*file, 0), 'x');
  EXPECT_EQ(at(*file, 5 * page_ + 7), '\0');
  EXPECT_EQ(at(*file, kPages * page_ - 1), '\0');
  const auto result = file->check_unchanged();
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("w.bin: had"));
}

// The file grows back to its old size and time before the check: only the mark of the mapping knows.
TEST_F(MappedFileTest, RemembersThatPagesWereLost) {
  const auto file = mapped();
  struct stat before {};
  ASSERT_EQ(stat(path_.c_str(), &before), 0);
  fs::resize_file(path_, page_);
  EXPECT_EQ(at(*file, 4 * page_), '\0');
  fs::resize_file(path_, kPages * page_);
  const timespec times[2]{before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  const auto result = file->check_unchanged();
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("w.bin: could not be read to its end while it was mapped"));
  EXPECT_TRUE(mapped()->check_unchanged());  // a new mapping starts clean
}

TEST_F(MappedFileTest, SurvivesManyThreadsReadingWhileTheFileIsCut) {
  for (int round = 0; round < 20; ++round) {
    put_file(path_, std::string(kPages * page_, 'x'));
    const auto file = mapped();
    std::vector<std::thread> readers;
    for (int t = 0; t < 4; ++t)
      readers.emplace_back([&] {
        for (size_t byte = 0; byte < kPages * page_; byte += 61) {
          const char value = at(*file, byte);
          EXPECT_TRUE(value == 'x' || value == '\0');
        }
      });
    fs::resize_file(path_, page_ * (round % kPages));
    for (std::thread& reader : readers) reader.join();
    EXPECT_FALSE(file->check_unchanged());
  }
}

// A SIGBUS that is not ours ends the process as before, or reaches the handler that was there before ours.
void touch_a_foreign_mapping_behind_its_end(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  auto* data = static_cast<const volatile char*>(mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, descriptor, 0));
  static_cast<void>(truncate(path.c_str(), 0));
  static_cast<void>(data[0]);
}

TEST_F(MappedFileTest, LeavesForeignFaultsAlone) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process, in which our handler is not installed yet
  put_file(folder_.path() / "foreign", std::string(8192, 'y'));
  EXPECT_EXIT(
      {
        signal(SIGBUS, [](int) { _exit(7); });
        const auto ours = mapped();
        touch_a_foreign_mapping_behind_its_end(folder_.path() / "foreign");
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace switchyard

// Saving: the old or the new version, whole; nothing left behind.
#include "engine/base/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

class AtomicFileTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "edits.json";
};

TEST_F(AtomicFileTest, AppearsOnlyAtCommit) {
  auto file = AtomicFile::create(path_);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write("one "));
  ASSERT_TRUE(file->write("two"));
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(file_content(path_), "one two");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitNothingIsLeft) {
  {
    auto file = AtomicFile::create(path_);
    ASSERT_TRUE(file && file->write("half"));
  }
  EXPECT_EQ(entries(folder_.path()), 0u);
}

TEST_F(AtomicFileTest, AnExistingFileIsReplacedOnlyOnRequest) {
  ASSERT_TRUE(write_file(path_, "old"));
  const auto refused = write_file(path_, "new");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutput);
  EXPECT_THAT(refused.error().message(),
              HasSubstr("exists already. Choose another name, or overwrite it with --force."));
  EXPECT_EQ(file_content(path_), "old");
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  ASSERT_TRUE(write_file(path_, "new", Overwrite::kAllow));
  EXPECT_EQ(file_content(path_), "new");
  struct stat now {};
  ASSERT_EQ(stat(path_.c_str(), &now), 0);
  EXPECT_EQ(now.st_mode & 0777u, 0640u);
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(AtomicFileTest, AFileThatAppearsMeanwhileIsNotReplaced) {
  auto file = AtomicFile::create(path_);
  ASSERT_TRUE(file && file->write("mine"));
  ASSERT_TRUE(write_file(path_, "theirs"));
  EXPECT_FALSE(file->commit());
  EXPECT_EQ(file_content(path_), "theirs");
}

TEST_F(AtomicFileTest, ASymbolicLinkKeepsPointingAtTheNewVersion) {
  const fs::path link = folder_.path() / "link.json";
  ASSERT_TRUE(write_file(path_, "old"));
  fs::create_symlink("edits.json", link);
  ASSERT_TRUE(write_file(link, "new", Overwrite::kAllow));
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(file_content(path_), "new");
}

TEST_F(AtomicFileTest, RefusalsNameThePath) {
  EXPECT_THAT(write_file(folder_.path() / "absent" / "x", "").error().message(),
              HasSubstr("absent/x: could not be created"));
  EXPECT_THAT(write_file(folder_.path(), "").error().message(), HasSubstr("not a regular file"));
}

// The write fails in the middle (a file size limit stands in for a full disk): the old file stays, no leftovers.
TEST_F(AtomicFileTest, AFailedWriteLeavesTheOldFile) {
  ASSERT_TRUE(write_file(path_, "old"));
  EXPECT_EXIT(
      {
        signal(SIGXFSZ, SIG_IGN);
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = 1000;
        setrlimit(RLIMIT_FSIZE, &limit);
        const auto written = write_file(path_, std::string(5000, 'x'), Overwrite::kAllow);
        const bool told = !written && written.error().message().find("could not be written") != std::string::npos;
        _exit(told ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
  EXPECT_EQ(file_content(path_), "old");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

}  // namespace
}  // namespace switchyard

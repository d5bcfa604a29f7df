// Files opened by name inside one folder: what may be reached and what not (formats.md, sections 2 and 3.5).
#include "engine/base/folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string opened(const fs::path& folder, std::string_view name) {
  const auto open = Folder::open(folder);
  if (!open) return open.error().message();
  const auto text = open->read_text(name, 1000);
  return text ? *text : text.error().message();
}

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    fs::create_directories(inside_ / "sub");
    put_file(inside_ / "a.json", "a");
    put_file(inside_ / "sub" / "b.json", "b");
    put_file(temporary_.path() / "secret.json", "secret");
  }
  void link(const fs::path& target, const std::string& name) { fs::create_symlink(target, inside_ / name); }

  TemporaryFolder temporary_;
  fs::path inside_ = temporary_.path() / "model";
};

TEST_F(FolderTest, ReadsFilesAndLinksThatStayInside) {
  EXPECT_EQ(opened(inside_, "a.json"), "a");
  link("a.json", "same.json");
  EXPECT_EQ(opened(inside_, "same.json"), "a");
  link("sub/b.json", "below.json");
  EXPECT_EQ(opened(inside_, "below.json"), "b");
  fs::create_directory_symlink(inside_, temporary_.path() / "alias");  // the user's own choice of folder
  EXPECT_EQ(opened(temporary_.path() / "alias", "a.json"), "a");
}

TEST_F(FolderTest, RefusesNamesThatAreNoFileNames) {
  for (const std::string_view name :
       {"", ".", "..", "../secret.json", "sub/b.json", "/etc/passwd", "a\\b", "./a.json", "a.json/"})
    EXPECT_THAT(opened(inside_, name), HasSubstr("is not a plain file name")) << name;
  EXPECT_THAT(opened(inside_, std::string_view("a.json\0", 7)), HasSubstr("is not a plain file name"));
  EXPECT_THAT(opened(inside_, std::string(256, 'a')), HasSubstr("is not a plain file name"));
}

TEST_F(FolderTest, RefusesLinksThatLeadOut) {
  link("../secret.json", "relative.json");
  link(temporary_.path() / "secret.json", "absolute.json");
  link("sub/../../secret.json", "detour.json");
  link("/proc/self/exe", "magic.json");
  link("loop.json", "loop.json");
  fs::create_directory_symlink("..", inside_ / "up");
  link("up/secret.json", "through_folder.json");
  link("relative.json", "two_hops.json");
  for (const char* name : {"relative.json", "absolute.json", "detour.json", "magic.json", "loop.json",
                           "through_folder.json", "two_hops.json"})
    EXPECT_THAT(opened(inside_, name), HasSubstr("is a link that leads out of the folder or in a circle")) << name;
}

TEST_F(FolderTest, RefusesWhatIsNoRegularFile) {
  ASSERT_EQ(mkfifo((inside_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(opened(inside_, "pipe"), "pipe: is not a regular file.");  // and does not wait for a writer
  EXPECT_EQ(opened(inside_, "sub"), "sub: is not a regular file.");
}

TEST_F(FolderTest, SaysWhatIsMissing) {
  EXPECT_THAT(opened(inside_, "x.json"), HasSubstr("x.json: is not in "));
  link("gone.json", "dangling.json");
  EXPECT_THAT(opened(inside_, "dangling.json"), HasSubstr("is a link to a file that is not there"));
  EXPECT_THAT(opened(inside_ / "gone", "a.json"), HasSubstr("could not be opened: No such file"));
  EXPECT_THAT(opened(inside_ / "a.json", "a.json"), HasSubstr("could not be opened as a folder"));
}

TEST_F(FolderTest, LimitsWhatIsReadAtOnce) {
  put_file(inside_ / "long.json", std::string(1001, 'x'));
  EXPECT_EQ(opened(inside_, "long.json"), "long.json: has 1001 bytes, more than the limit of 1000.");
}

TEST_F(FolderTest, ReadingPastTheEndNamesTheByte) {
  const auto file = Folder::open(inside_)->open_file("a.json");
  ASSERT_TRUE(file);
  std::string bytes(3, '\0');
  EXPECT_THAT(file->read(0, bytes).error().message(),
              HasSubstr("a.json: ends at byte 1, 3 bytes from byte 0 are needed."));
}

TEST_F(FolderTest, NoticesThatAFileChanged) {
  const auto folder = Folder::open(inside_);
  const auto check = [&](auto change) {
    put_file(inside_ / "w.bin", "1234");
    const auto file = folder->open_file("w.bin");
    EXPECT_TRUE(file->check_unchanged());
    change();
    const auto result = file->check_unchanged();
    return result ? std::string("unchanged") : result.error().message();
  };
  EXPECT_THAT(check([&] { fs::resize_file(inside_ / "w.bin", 2); }),
              HasSubstr("w.bin: had 4 bytes when it was opened and has 2 now."));
  EXPECT_THAT(check([&] { fs::remove(inside_ / "w.bin"); }), HasSubstr("was removed"));
  EXPECT_THAT(check([&] {
                put_file(inside_ / "new", "1234");
                fs::rename(inside_ / "new", inside_ / "w.bin");
              }),
              HasSubstr("was replaced"));
  EXPECT_THAT(check([&] {
                const timespec times[2]{{1, 0}, {1, 0}};
                utimensat(AT_FDCWD, (inside_ / "w.bin").c_str(), times, 0);
              }),
              HasSubstr("was written to"));
}

// A snapshot of the Hugging Face cache: files are links into blobs/.
class SnapshotTest : public FolderTest {
 protected:
  SnapshotTest() {
    fs::create_directories(snapshot_);
    fs::create_directories(model_ / "blobs");
    put_file(model_ / "blobs" / "abc", "blob");
  }
  fs::path model_ = temporary_.path() / "models--org--name";
  fs::path snapshot_ = model_ / "snapshots" / "0123";
  void link_here(const fs::path& target, const std::string& name) { fs::create_symlink(target, snapshot_ / name); }
};

TEST_F(SnapshotTest, OneHopIntoTheBlobsOfTheSameModelOpens) {
  link_here("../../blobs/abc", "relative.json");
  link_here(model_ / "blobs" / "abc", "absolute.json");
  put_file(snapshot_ / "copied.json", "copy");  // where the file system has no links
  EXPECT_EQ(opened(snapshot_, "relative.json"), "blob");
  EXPECT_EQ(opened(snapshot_, "absolute.json"), "blob");
  EXPECT_EQ(opened(snapshot_, "copied.json"), "copy");
  fs::create_directory_symlink(model_, temporary_.path() / "cache-link");  // the cache itself behind a link
  EXPECT_EQ(opened(temporary_.path() / "cache-link" / "snapshots" / "0123", "relative.json"), "blob");
}

TEST_F(SnapshotTest, AnythingElseIsRefused) {
  const fs::path other = temporary_.path() / "models--org--other";
  fs::create_directories(other / "blobs");
  put_file(other / "blobs" / "abc", "other");
  fs::create_symlink("abc", model_ / "blobs" / "second_hop");
  fs::create_symlink("../../secret.json", model_ / "blobs" / "leads_out");
  fs::create_directories(model_ / "blobs" / "folder");
  link_here("../../../secret.json", "out.json");
  link_here("../../../models--org--other/blobs/abc", "other_model.json");
  link_here("../../blobs/../../secret.json", "detour.json");
  link_here("../../blobs/../blobs", "folder_itself.json");
  link_here("../../refs/main", "refs.json");
  link_here("/etc/passwd", "passwd.json");
  for (const char* name :
       {"out.json", "other_model.json", "detour.json", "folder_itself.json", "refs.json", "passwd.json"})
    EXPECT_THAT(opened(snapshot_, name), HasSubstr("which is not in the blobs of this model")) << name;
  link_here("../../blobs/second_hop", "second_hop.json");
  link_here("../../blobs/leads_out", "leads_out.json");
  for (const char* name : {"second_hop.json", "leads_out.json"})
    EXPECT_THAT(opened(snapshot_, name), HasSubstr("is a link to another link")) << name;
  link_here("../../blobs/folder", "folder.json");
  EXPECT_THAT(opened(snapshot_, "folder.json"), HasSubstr("is not a regular file"));
  link_here("../../blobs/gone", "gone.json");
  EXPECT_THAT(opened(snapshot_, "gone.json"),
              HasSubstr("is a link to a blob that is not there. The download is unfinished"));
}

TEST_F(SnapshotTest, ABlobsFolderThatIsALinkIsRefused) {
  fs::rename(model_ / "blobs", temporary_.path() / "elsewhere");
  fs::create_directory_symlink(temporary_.path() / "elsewhere", model_ / "blobs");
  link_here("../../blobs/abc", "a.json");
  EXPECT_THAT(opened(snapshot_, "a.json"), HasSubstr("is a link to another link"));
}

}  // namespace
}  // namespace switchyard

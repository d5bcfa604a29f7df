// Saving a file whole or not at all.
#include "engine/base/atomic_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string shown(const fs::path& path) {
  return printable(path.string(), 400);
}

tl::unexpected<Error> exists_already(const fs::path& path) {
  return fail(ErrorCode::kOutput, "exists already.", shown(path), "Choose another name, or overwrite it with --force.");
}

// rename() that does not replace, also where the file system lacks RENAME_NOREPLACE. 0 or errno.
int rename_onto_nothing(const char* from, const char* to) {
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (link(from, to) != 0) return errno;
  unlink(from);
  return 0;
}

tl::unexpected<Error> could_not(std::string_view action, int error, const fs::path& target) {
  std::string what = fmt::format("could not {}: {}.", action, std::system_category().message(error));
  std::error_code ignored;
  if (const auto space = fs::space(target.parent_path(), ignored); !ignored && (error == ENOSPC || error == EDQUOT))
    what += fmt::format(" {} bytes are free there.", space.available);
  return fail(ErrorCode::kOutput, what, shown(target));
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // write-only folders: the rename itself has succeeded
  fsync(descriptor);
  ::close(descriptor);
}

// fsync, rename, fsync of the folder.
Result<void> put_in_place(int descriptor, const fs::path& temporary, const fs::path& target, Overwrite overwrite) {
  if (fsync(descriptor) != 0) return could_not("be written to disk", errno, target);
  int error = 0;
  if (overwrite == Overwrite::kRefuse) {
    error = rename_onto_nothing(temporary.c_str(), target.c_str());
    if (error == EEXIST) return exists_already(target);
  } else if (::rename(temporary.c_str(), target.c_str()) != 0) {
    error = errno;
  }
  if (error != 0) return could_not("be given its name", error, target);
  sync_folder(target.has_parent_path() ? target.parent_path() : fs::path("."));
  return {};
}

}  // namespace

AtomicFile::AtomicFile(fs::path target, fs::path temporary, int descriptor, Overwrite overwrite)
    : target_(std::move(target)), temporary_(std::move(temporary)), descriptor_(descriptor), overwrite_(overwrite) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      overwrite_(other.overwrite_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

tl::unexpected<Error> AtomicFile::failed(std::string_view action, int error) const {
  return could_not(action, error, target_);
}

Result<AtomicFile> AtomicFile::create(const fs::path& path, Overwrite overwrite) {
  std::error_code error;
  fs::path target = fs::absolute(path, error);
  if (error || !target.has_filename()) return fail(ErrorCode::kOutput, "is not a file name.", shown(path));
  if (fs::is_symlink(target, error)) {
    target = fs::weakly_canonical(target, error);
    if (error) return fail(ErrorCode::kOutput, "is a symbolic link that leads nowhere.", shown(path));
  }
  struct stat old {};
  const bool exists = ::stat(target.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode))
    return fail(ErrorCode::kOutput, "exists and is not a regular file.", shown(path));
  if (exists && overwrite == Overwrite::kRefuse) return exists_already(path);

  static std::atomic<unsigned> counter{0};
  const fs::path temporary =
      target.parent_path() /
      fmt::format(".{}.{}-{}.tmp", target.filename().string().substr(0, 200), getpid(), counter++);
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    const int reason = errno;
    return fail(ErrorCode::kOutput, fmt::format("could not be created: {}.", std::system_category().message(reason)),
                shown(path));
  }
  if (exists) static_cast<void>(fchmod(descriptor, old.st_mode & 07777));
  return AtomicFile(std::move(target), temporary, descriptor, overwrite);
}

Result<void> AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("be written", errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

Result<void> AtomicFile::commit() {
  SY_CHECK(put_in_place(descriptor_, temporary_, target_, overwrite_));
  ::close(std::exchange(descriptor_, -1));
  return {};
}

Result<void> move_into_place(const fs::path& temporary, const fs::path& target, Overwrite overwrite) {
  const int descriptor = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return could_not("be opened again", errno, target);
  auto moved = put_in_place(descriptor, temporary, target, overwrite);
  ::close(descriptor);
  return moved;
}

Result<void> write_file(const fs::path& path, std::string_view bytes, Overwrite overwrite) {
  SY_TRY(auto file, AtomicFile::create(path, overwrite));
  SY_CHECK(file.write(bytes));
  return file.commit();
}

}  // namespace switchyard

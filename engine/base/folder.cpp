// Files opened by name inside one folder.
#include "engine/base/folder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;  // a pipe must not block the opening

// openat2, or where the kernel or a sandbox lacks it openat, which then follows no link at all.
Descriptor open_in(int folder, const std::string& name, uint64_t resolve) {
  open_how how{};
  how.flags = kReadFlags;
  how.resolve = resolve;
  const long opened = syscall(SYS_openat2, folder, name.c_str(), &how, sizeof how);
  if (opened >= 0 || (errno != ENOSYS && errno != EPERM)) return Descriptor(static_cast<int>(opened));
  return Descriptor(openat(folder, name.c_str(), kReadFlags | O_NOFOLLOW));
}

std::string reason(int error) {
  return std::system_category().message(error);
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

bool is_file_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
  });
}

Result<void> OpenFile::read(uint64_t offset, std::span<char> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(descriptor_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::kNotFound, fmt::format("could not be read: {}.", reason(errno)), name_);
    if (got == 0)
      return fail(ErrorCode::kMalformed,
                  fmt::format("ends at byte {}, {} bytes from byte {} are needed.", offset + done, out.size(), offset),
                  name_, "Was it cut while it was read?");
    done += static_cast<size_t>(got);
  }
  return {};
}

Result<std::string> OpenFile::read_all(uint64_t max_bytes) const {
  if (size_ > max_bytes)
    return fail(ErrorCode::kMalformed, fmt::format("has {} bytes, more than the limit of {}.", size_, max_bytes),
                name_);
  std::string text(size_, '\0');
  SY_CHECK(read(0, text));
  return text;
}

Result<void> OpenFile::check_unchanged() const {
  struct stat named {};
  const bool found = fstatat(folder_->get(), name_.c_str(), &named, 0) == 0;
  if (!found || named.st_dev != device_ || named.st_ino != inode_)
    return fail(ErrorCode::kMalformed, found ? "was replaced while it was in use." : "was removed while it was in use.",
                name_, "Open the model again.");
  if (static_cast<uint64_t>(named.st_size) != size_)
    return fail(ErrorCode::kMalformed,
                fmt::format("had {} bytes when it was opened and has {} now.", size_, named.st_size), name_,
                "Open the model again.");
  if (named.st_mtim.tv_sec != modified_.tv_sec || named.st_mtim.tv_nsec != modified_.tv_nsec)
    return fail(ErrorCode::kMalformed, "was written to while it was in use.", name_, "Open the model again.");
  return {};
}

Result<Folder> Folder::open(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error)
    return fail(ErrorCode::kNotFound, fmt::format("could not be opened: {}.", error.message()),
                printable(path.string(), 400));
  Descriptor descriptor(::open(real.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor)
    return fail(ErrorCode::kNotFound, fmt::format("could not be opened as a folder: {}.", reason(errno)),
                printable(path.string(), 400));
  return Folder(real, std::move(descriptor));
}

bool Folder::is_cache_snapshot() const {
  const fs::path snapshots = path_.parent_path();
  return snapshots.filename() == "snapshots" && snapshots.parent_path().filename().string().starts_with("models--");
}

// A link to <model>/blobs/NAME, by descriptors only: neither `blobs` nor the blob may be a link themselves.
Result<Descriptor> Folder::open_blob(const std::string& name) const {
  std::string target(4096, '\0');
  const ssize_t length = readlinkat(descriptor_->get(), name.c_str(), target.data(), target.size());
  target.resize(length < 0 ? 0 : static_cast<size_t>(length));
  const fs::path model = path_.parent_path().parent_path();
  const fs::path blob = (path_ / target).lexically_normal();
  if (target.empty() || blob.parent_path() != model / "blobs" || !is_file_name(blob.filename().string()))
    return fail(ErrorCode::kMalformed,
                fmt::format("is a link to {}, which is not in the blobs of this model.", quote(target)), name,
                "Refused: a checkpoint may not lead to other files.");
  const Descriptor blobs(openat(descriptor_->get(), "../../blobs", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  Descriptor file =
      blobs ? open_in(blobs.get(), blob.filename().string(), RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) : Descriptor();
  if (file) return file;
  const int error = errno;
  if (error == ENOENT)
    return fail(ErrorCode::kNotFound, "is a link to a blob that is not there.", name,
                "The download is unfinished: start it again.");
  if (error == ELOOP || error == EXDEV || error == ENOTDIR)
    return fail(ErrorCode::kMalformed, "is a link to another link; one step into blobs is allowed.", name,
                "Refused: a checkpoint may not lead to other files.");
  return fail(ErrorCode::kNotFound, fmt::format("could not be opened: {}.", reason(error)), name);
}

Result<OpenFile> Folder::open_file(std::string_view file_name) const {
  if (!is_file_name(file_name))
    return fail(ErrorCode::kMalformed, fmt::format("{} is not a plain file name.", quote(file_name)),
                printable(path_.string(), 400), "Refused: a checkpoint may not lead to other files.");
  const std::string name(file_name);
  Descriptor descriptor = open_in(descriptor_->get(), name, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
  if (!descriptor) {
    const int error = errno;
    const bool leads_out = error == EXDEV || error == ELOOP;
    if (leads_out && is_cache_snapshot()) {
      SY_TRY(descriptor, open_blob(name));
    } else if (leads_out) {
      return fail(ErrorCode::kMalformed, "is a link that leads out of the folder or in a circle.", name,
                  "Refused: a checkpoint may not lead to other files.");
    } else if (error == ENOENT && has(name)) {
      return fail(ErrorCode::kNotFound, "is a link to a file that is not there.", name);
    } else if (error == ENOENT) {
      return fail(ErrorCode::kNotFound, fmt::format("is not in {}.", printable(path_.string(), 400)), name);
    } else {
      return fail(ErrorCode::kNotFound, fmt::format("could not be opened: {}.", reason(error)), name);
    }
  }
  OpenFile file(descriptor_, name, std::move(descriptor));
  struct stat found {};
  if (fstat(file.descriptor(), &found) != 0)
    return fail(ErrorCode::kNotFound, fmt::format("could not be examined: {}.", reason(errno)), name);
  if (!S_ISREG(found.st_mode)) return fail(ErrorCode::kMalformed, "is not a regular file.", name);
  file.size_ = static_cast<uint64_t>(found.st_size);
  file.device_ = found.st_dev;
  file.inode_ = found.st_ino;
  file.modified_ = found.st_mtim;
  return file;
}

Result<std::string> Folder::read_text(std::string_view name, uint64_t max_bytes) const {
  SY_TRY(const OpenFile file, open_file(name));
  return file.read_all(max_bytes);
}

bool Folder::has(std::string_view name) const {
  struct stat found {};
  return is_file_name(name) && fstatat(descriptor_->get(), std::string(name).c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(path_, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace switchyard

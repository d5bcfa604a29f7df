// Saving a file so that a reader sees the old or the new version, whole, whatever happens in between.
// Used by every writer of user files; one thread at a time per object.
// Rule: reliability.md, section 2.5.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace switchyard {

enum class Overwrite : bool { kRefuse, kAllow };

// A temporary file in the folder of `path`; commit() gives it that name, the destructor removes what was not
// committed. A symbolic link at `path` is followed: its target is replaced. An overwritten file keeps its mode.
class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::filesystem::path& path, Overwrite overwrite = Overwrite::kRefuse);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  Result<void> write(std::string_view bytes);
  // fsync, rename, fsync of the folder. Nothing may be written afterwards.
  Result<void> commit();

  // For libraries that want a name or a descriptor to write to.
  const std::filesystem::path& temporary_path() const { return temporary_; }
  int descriptor() const { return descriptor_; }

 private:
  AtomicFile(std::filesystem::path target, std::filesystem::path temporary, int descriptor, Overwrite overwrite);
  tl::unexpected<Error> failed(std::string_view action, int error) const;

  std::filesystem::path target_, temporary_;
  int descriptor_;
  Overwrite overwrite_;
};

// The end of every save for a file that a library wrote under another name in the same folder: fsync,
// rename, fsync of the folder. On error `temporary` is still there.
Result<void> move_into_place(const std::filesystem::path& temporary, const std::filesystem::path& target,
                             Overwrite overwrite);

// create, write, commit.
Result<void> write_file(const std::filesystem::path& path, std::string_view bytes,
                        Overwrite overwrite = Overwrite::kRefuse);

}  // namespace switchyard

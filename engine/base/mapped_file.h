// A file mapped read-only, guarded: where pages can no longer be read (the file was cut, the disk failed) they
// read as zeros and the mapping is marked, instead of the process dying of SIGBUS. Any thread.
// Rule: formats.md, section 3.6.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "engine/base/folder.h"
#include "engine/base/result.h"

namespace switchyard {

class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> map(OpenFile file);
  MappedFile(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  const OpenFile& file() const { return file_; }

  // Gives whole pages inside this range back to the file: they are read again when touched. For what was copied.
  void release(size_t begin, size_t end) const;

  // An error if a page could not be read since map(), or the file changed on disk.
  Result<void> check_unchanged() const;

 private:
  MappedFile(OpenFile file, std::span<const std::byte> bytes, int guard)
      : file_(std::move(file)), bytes_(bytes), guard_(guard) {}

  OpenFile file_;
  std::span<const std::byte> bytes_;
  int guard_;  // entry in the table of the signal handler; -1 for an empty file
};

}  // namespace switchyard

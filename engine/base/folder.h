// A folder opened once, and files opened in it by name, never by path: what a file says can not lead out of it.
// Used for checkpoints, tokenizers and workspaces; any thread.
// Rules: formats.md, sections 2 and 3.5; reliability.md, section 2.6.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();
  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_;
};

// A regular file, open for reading; what is read later comes from the file that was checked.
class OpenFile {
 public:
  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }  // when it was opened
  int descriptor() const { return descriptor_.get(); }

  // Exactly out.size() bytes from `offset`; an error names the file and what was there.
  Result<void> read(uint64_t offset, std::span<char> out) const;
  // The whole file, at most max_bytes.
  Result<std::string> read_all(uint64_t max_bytes) const;
  // Frees the descriptor; read() fails afterwards, check_unchanged() still works.
  void close() { descriptor_ = Descriptor(); }
  // An error if the name now leads to another file, or size or modification time differ.
  Result<void> check_unchanged() const;

 private:
  friend class Folder;
  OpenFile(std::shared_ptr<const Descriptor> folder, std::string name, Descriptor descriptor)
      : folder_(std::move(folder)), name_(std::move(name)), descriptor_(std::move(descriptor)) {}

  std::shared_ptr<const Descriptor> folder_;
  std::string name_;
  Descriptor descriptor_;
  uint64_t size_ = 0;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  timespec modified_{};
};

class Folder {
 public:
  static Result<Folder> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }  // absolute, links resolved

  // name: one path component. Links that stay inside the folder are followed; in a snapshot of the Hugging Face
  // cache (models--*/snapshots/REVISION) also exactly one hop to a regular file in blobs/ of the same model.
  Result<OpenFile> open_file(std::string_view name) const;
  Result<std::string> read_text(std::string_view name, uint64_t max_bytes) const;
  bool has(std::string_view name) const;   // anything of that name, a dangling link too
  std::vector<std::string> names() const;  // of all entries, sorted

 private:
  Folder(std::filesystem::path path, Descriptor descriptor)
      : path_(std::move(path)), descriptor_(std::make_shared<const Descriptor>(std::move(descriptor))) {}
  bool is_cache_snapshot() const;
  Result<Descriptor> open_blob(const std::string& name) const;

  std::filesystem::path path_;
  std::shared_ptr<const Descriptor> descriptor_;
};

// One path component: not empty, ".", ".." or longer than 255 bytes; no '/', '\' or control character.
bool is_file_name(std::string_view name);

}  // namespace switchyard

// The files of a dump: one file, or the files of a folder; read by name, never by a path that a file gives.
// Called by the readers of dumps, in the importer's child process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <zlib.h>

#include "engine/base/folder.h"
#include "engine/base/result.h"

namespace switchyard::dumps {

class DumpSource {
 public:
  // kNotFound: nothing is there, or it is neither a file nor a folder.
  static Result<DumpSource> open(const std::filesystem::path& path);

  bool is_folder() const { return is_folder_; }
  const std::string& shown() const { return shown_; }  // the path as given, for messages
  const std::vector<std::string>& names() const { return names_; }  // of the file, or of the folder's entries, sorted
  std::vector<std::string> names_ending(std::string_view end) const;
  Result<OpenFile> file(const std::string& name) const;  // counts as read from; also one beside a file that was given
  bool has(const std::string& name) const { return folder_.has(name); }
  std::string start_of(const std::string& name, size_t bytes = 4096) const;  // "" where it cannot be read

  const std::vector<std::string>& read_from() const { return *read_from_; }  // names, in order of first use

 private:
  DumpSource(Folder folder, std::string shown) : folder_(std::move(folder)), shown_(std::move(shown)) {}
  Folder folder_;
  std::string shown_;
  bool is_folder_ = false;
  std::vector<std::string> names_;
  std::shared_ptr<std::vector<std::string>> read_from_ = std::make_shared<std::vector<std::string>>();
};

// "name:line" or "name", for messages.
std::string place(const std::string& name, uint64_t line);

// Lines of a text, plain or gzip (told by its first bytes). A line is at most `cap` bytes.
class LineReader {
 public:
  LineReader(const OpenFile& file, uint64_t cap);
  ~LineReader();
  LineReader(const LineReader&) = delete;

  // The next line without its end; false: there is none. Errors name file and line.
  Result<bool> next(std::string& line);
  uint64_t number() const { return number_; }  // of the last line, from 1
  std::string place() const { return dumps::place(file_.name(), number_); }
  double fraction() const { return file_.size() == 0 ? 1 : double(at_) / double(file_.size()); }

 private:
  Result<bool> fill();
  const OpenFile& file_;
  uint64_t cap_, at_ = 0, number_ = 0;
  bool gzip_ = false, started_ = false, stream_open_ = false;
  z_stream stream_{};
  std::string raw_, text_;  // what was read, what was unpacked and not yet given out
  size_t begin_ = 0;        // of what is left of text_
};

// The whole text of a file, plain or gzip, at most `cap` bytes.
Result<std::string> read_text(const OpenFile& file, uint64_t cap);

// Lower-case hex of the file's bytes.
Result<std::string> sha256_of(const OpenFile& file);

}  // namespace switchyard::dumps

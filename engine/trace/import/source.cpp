// Folders, lines, gzip, hashes.
#include "engine/trace/import/source.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "engine/base/text.h"
#include "engine/trace/rehearsal.h"

namespace switchyard::dumps {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPiece = 1 << 18;

}  // namespace

Result<DumpSource> DumpSource::open(const fs::path& path) {
  const std::string shown = printable(path.string(), 400);
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return fail(ErrorCode::kNotFound, "could not be opened: " + error.message() + ".", shown);
  const bool folder = fs::is_directory(real, error);
  if (!folder && !fs::is_regular_file(real, error))
    return fail(ErrorCode::kNotFound, "is neither a file nor a folder.", shown);
  SY_TRY(Folder opened, Folder::open(folder ? real : real.parent_path()));
  DumpSource source(std::move(opened), shown);
  source.is_folder_ = folder;
  if (folder)
    source.names_ = source.folder_.names();
  else
    source.names_ = {real.filename().string()};
  return source;
}

std::vector<std::string> DumpSource::names_ending(std::string_view end) const {
  std::vector<std::string> out;
  std::copy_if(names_.begin(), names_.end(), std::back_inserter(out), [&](const std::string& name) { return name.ends_with(end); });
  return out;
}

Result<OpenFile> DumpSource::file(const std::string& name) const {
  SY_TRY(OpenFile opened, folder_.open_file(name));
  if (std::find(read_from_->begin(), read_from_->end(), name) == read_from_->end()) read_from_->push_back(name);
  return opened;
}

std::string DumpSource::start_of(const std::string& name, size_t bytes) const {
  const auto opened = folder_.open_file(name);
  if (!opened) return "";
  std::string start(std::min<uint64_t>(bytes, opened->size()), '\0');
  return opened->read(0, start) ? start : "";
}

std::string place(const std::string& name, uint64_t line) { return name + ":" + std::to_string(line); }

LineReader::LineReader(const OpenFile& file, uint64_t cap) : file_(file), cap_(cap) {}

LineReader::~LineReader() {
  if (stream_open_) inflateEnd(&stream_);
}

// More of the text behind what is there; false: the file is at its end.
Result<bool> LineReader::fill() {
  rehearsal_step();
  text_.erase(0, begin_);
  begin_ = 0;
  if (!started_) {
    started_ = true;
    char magic[2] = {};
    if (file_.size() >= 2) SY_CHECK(file_.read(0, magic));
    gzip_ = magic[0] == '\x1f' && magic[1] == '\x8b';
    if (gzip_) {
      if (inflateInit2(&stream_, 15 + 16) != Z_OK) return fail(ErrorCode::kMemory, "there is no memory to unpack it.", file_.name());
      stream_open_ = true;
    }
  }
  if (!gzip_) {
    if (at_ == file_.size()) return false;
    const size_t bytes = std::min<uint64_t>(kPiece, file_.size() - at_), before = text_.size();
    text_.resize(before + bytes);
    SY_CHECK(file_.read(at_, std::span(text_.data() + before, bytes)));
    at_ += bytes;
    return true;
  }
  for (;;) {
    if (stream_.avail_in == 0) {
      if (at_ == file_.size()) {
        if (stream_open_) return fail(ErrorCode::kMalformed, "is cut short: its gzip stream has no end.", file_.name());
        return false;
      }
      raw_.resize(std::min<uint64_t>(kPiece, file_.size() - at_));
      SY_CHECK(file_.read(at_, raw_));
      at_ += raw_.size();
      stream_.next_in = reinterpret_cast<Bytef*>(raw_.data());
      stream_.avail_in = uInt(raw_.size());
    }
    if (!stream_open_) {  // another member follows
      if (inflateInit2(&stream_, 15 + 16) != Z_OK) return fail(ErrorCode::kMemory, "there is no memory to unpack it.", file_.name());
      stream_open_ = true;
    }
    const size_t before = text_.size();
    text_.resize(before + kPiece);
    stream_.next_out = reinterpret_cast<Bytef*>(text_.data() + before);
    stream_.avail_out = uInt(kPiece);
    const int status = inflate(&stream_, Z_NO_FLUSH);
    text_.resize(text_.size() - stream_.avail_out);
    if (status == Z_STREAM_END) {
      const auto* in = stream_.next_in;
      const uInt left = stream_.avail_in;
      inflateEnd(&stream_);
      stream_open_ = false;
      stream_ = {};
      stream_.next_in = const_cast<Bytef*>(in);
      stream_.avail_in = left;
      if (left == 0 && at_ == file_.size()) return text_.size() > before;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      return fail(ErrorCode::kMalformed, "is damaged: its gzip stream cannot be unpacked near byte " + std::to_string(at_) + ".", file_.name());
    }
    if (text_.size() > before) return true;
  }
}

Result<bool> LineReader::next(std::string& line) {
  size_t searched = begin_;
  for (;;) {
    const size_t end = text_.find('\n', searched);
    const bool found = end != std::string::npos;
    if ((found ? end : text_.size()) - begin_ > cap_) {
      return fail(ErrorCode::kMalformed, "the line is longer than " + std::to_string(cap_) + " bytes.", dumps::place(file_.name(), number_ + 1),
                  "If it is meant to be, raise the limit with --max-line.");
    }
    if (found) {
      line.assign(text_, begin_, end - begin_);
      begin_ = end + 1;
      break;
    }
    const size_t left = text_.size() - begin_;
    SY_TRY(const bool more, fill());
    searched = left;
    if (more) continue;
    if (text_.empty()) return false;
    line = std::move(text_);
    text_.clear();
    break;
  }
  ++number_;
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

Result<std::string> read_text(const OpenFile& file, uint64_t cap) {
  LineReader lines(file, cap);
  std::string text, line;
  for (;;) {
    SY_TRY(const bool more, lines.next(line));
    if (!more) return text;
    if (text.size() + line.size() + 1 > cap)
      return fail(ErrorCode::kMalformed, "holds more than " + bytes_text(cap) + " of text.", file.name());
    text += line;
    text += '\n';
  }
}

Result<std::string> sha256_of(const OpenFile& file) {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1)
    return fail(ErrorCode::kInternal, "SHA-256 is not there.", file.name());
  std::string piece;
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    piece.resize(std::min<uint64_t>(1 << 22, file.size() - at));
    SY_CHECK(file.read(at, piece));
    EVP_DigestUpdate(context.get(), piece.data(), piece.size());
    rehearsal_step(double(at) / double(file.size()), "Hashing the source");
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &length);
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

}  // namespace switchyard::dumps

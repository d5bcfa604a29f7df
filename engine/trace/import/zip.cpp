// The central directory of a zip file, 64-bit forms included.
#include "engine/trace/import/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "engine/base/checked.h"
#include "engine/base/text.h"
#include "engine/trace/rehearsal.h"

namespace switchyard::dumps {
namespace {

constexpr uint64_t kMaxEntries = 100'000, kMaxDirectory = 64 << 20;
constexpr size_t kEnd = 22, kEntry = 46, kLocal = 30;

template <class T>
T load(const std::string& bytes, size_t at) {
  T value{};
  if (at + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Directory {
  uint64_t begin = 0, bytes = 0, entries = 0;
};

Result<Directory> find_directory(const OpenFile& file) {
  const auto refuse = [&](const std::string& what) { return fail(ErrorCode::kMalformed, what, file.name(), "The file is damaged or no zip archive."); };
  std::string tail(std::min<uint64_t>(file.size(), kEnd + 0xFFFF), '\0');
  SY_CHECK(file.read(file.size() - tail.size(), tail));
  size_t at = std::string::npos;
  for (size_t i = tail.size() < kEnd ? 0 : tail.size() - kEnd + 1; i-- > 0;)
    if (load<uint32_t>(tail, i) == 0x06054b50) {
      at = i;
      break;
    }
  if (at == std::string::npos) return refuse("has no end of a zip archive. Was it cut?");
  Directory directory{load<uint32_t>(tail, at + 16), load<uint32_t>(tail, at + 12), load<uint16_t>(tail, at + 10)};
  if (load<uint16_t>(tail, at + 4) != 0) return refuse("is one of several parts of a zip archive.");
  const uint64_t end = file.size() - tail.size() + at;
  if (directory.begin == 0xFFFFFFFF || directory.bytes == 0xFFFFFFFF || directory.entries == 0xFFFF) {
    if (end < 20) return refuse("is damaged: a 64-bit zip archive without its record.");
    std::string locator(20, '\0');
    SY_CHECK(file.read(end - 20, locator));
    const auto record_at = load<uint64_t>(locator, 8);
    if (load<uint32_t>(locator, 0) != 0x07064b50 || record_at > file.size() || file.size() - record_at < 56)
      return refuse("is damaged: its 64-bit zip record is not where it should be.");
    std::string record(56, '\0');
    SY_CHECK(file.read(record_at, record));
    if (load<uint32_t>(record, 0) != 0x06064b50) return refuse("is damaged: its 64-bit zip record is none.");
    directory = {load<uint64_t>(record, 48), load<uint64_t>(record, 40), load<uint64_t>(record, 32)};
  }
  if (directory.begin > file.size() || directory.bytes > file.size() - directory.begin || directory.bytes > kMaxDirectory ||
      directory.entries > kMaxEntries || directory.entries > directory.bytes / kEntry)
    return refuse("declares a zip directory of " + std::to_string(directory.entries) + " entries in " + std::to_string(directory.bytes) +
                  " bytes at byte " + std::to_string(directory.begin) + ", which does not fit the file.");
  return directory;
}

bool leads_out(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string::npos || name.find('\0') != std::string::npos) return true;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    if (name.compare(at, end - at, "..") == 0) return true;
    at = end + 1;
  }
  return false;
}

// Of the extra field of an entry: the 64-bit sizes that stand where the entry says 0xFFFFFFFF.
void widen(const std::string& extra, uint64_t& bytes, uint64_t& packed, uint64_t& local) {
  for (size_t at = 0; at + 4 <= extra.size();) {
    const uint16_t id = load<uint16_t>(extra, at), size = load<uint16_t>(extra, at + 2);
    if (id == 1) {
      size_t next = at + 4;
      for (uint64_t* value : {&bytes, &packed, &local}) {
        if (*value != 0xFFFFFFFF || next + 8 > at + 4 + size || next + 8 > extra.size()) continue;
        *value = load<uint64_t>(extra, next);
        next += 8;
      }
    }
    at += 4u + size;
  }
}

}  // namespace

Result<std::vector<ZipEntry>> read_zip(const OpenFile& file) {
  const auto refuse = [&](const std::string& name, const std::string& what) {
    return fail(ErrorCode::kMalformed, "entry " + quote(name) + " " + what, file.name());
  };
  SY_TRY(const Directory directory, find_directory(file));
  std::string bytes(directory.bytes, '\0');
  SY_CHECK(file.read(directory.begin, bytes));
  std::vector<ZipEntry> entries;
  std::set<std::string> names;
  size_t at = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (at + kEntry > bytes.size() || load<uint32_t>(bytes, at) != 0x02014b50)
      return fail(ErrorCode::kMalformed, "zip entry " + std::to_string(i) + " of " + std::to_string(directory.entries) + " is damaged.", file.name());
    const uint16_t flags = load<uint16_t>(bytes, at + 8), method = load<uint16_t>(bytes, at + 10);
    const size_t name_bytes = load<uint16_t>(bytes, at + 28), extra = load<uint16_t>(bytes, at + 30), comment = load<uint16_t>(bytes, at + 32);
    if (name_bytes + extra + comment > bytes.size() - at - kEntry)
      return fail(ErrorCode::kMalformed, "zip entry " + std::to_string(i) + " is longer than the directory.", file.name());
    ZipEntry entry{bytes.substr(at + kEntry, name_bytes), 0, load<uint32_t>(bytes, at + 20), load<uint32_t>(bytes, at + 24), method == 8};
    uint64_t local = load<uint32_t>(bytes, at + 42);
    widen(bytes.substr(at + kEntry + name_bytes, extra), entry.bytes, entry.packed, local);
    at += kEntry + name_bytes + extra + comment;
    if (flags & 1) return refuse(entry.name, "is encrypted.");
    if (method != 0 && method != 8) return refuse(entry.name, "is packed by method " + std::to_string(method) + "; stored and deflated entries are read.");
    if (leads_out(entry.name)) return refuse(entry.name, "has a name that leads out of the archive.");
    if (!names.insert(entry.name).second) return refuse(entry.name, "stands twice.");
    if (local > file.size() || file.size() - local < kLocal) return refuse(entry.name, "begins outside the file.");
    std::string header(kLocal, '\0');
    SY_CHECK(file.read(local, header));
    if (load<uint32_t>(header, 0) != 0x04034b50) return refuse(entry.name, "has no header at byte " + std::to_string(local) + ".");
    entry.begin = local + kLocal + load<uint16_t>(header, 26) + load<uint16_t>(header, 28);
    if (entry.begin > file.size() || entry.packed > file.size() - entry.begin)
      return refuse(entry.name, "has " + std::to_string(entry.packed) + " bytes at byte " + std::to_string(entry.begin) + "; the file ends before.");
    if (!entry.deflated && entry.packed != entry.bytes) return refuse(entry.name, "is stored with two different sizes.");
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::string> read_entry(const OpenFile& file, const ZipEntry& entry, uint64_t cap) {
  const auto refuse = [&](const std::string& what) {
    return fail(ErrorCode::kMalformed, "entry " + quote(entry.name) + " " + what, file.name());
  };
  if (entry.bytes > cap) return refuse("has " + bytes_text(entry.bytes) + "; " + bytes_text(cap) + " are read.");
  std::string packed(entry.packed, '\0');
  SY_CHECK(file.read(entry.begin, packed));
  if (!entry.deflated) return packed;
  std::string out;
  z_stream stream{};
  if (inflateInit2(&stream, -15) != Z_OK) return fail(ErrorCode::kMemory, "there is no memory to unpack it.", file.name());
  stream.next_in = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_in = uInt(std::min<uint64_t>(packed.size(), UINT32_MAX));
  int status = Z_OK;
  while (status == Z_OK && out.size() <= entry.bytes) {
    const size_t before = out.size();
    out.resize(before + (1 << 18));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream.avail_out = 1 << 18;
    status = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
    rehearsal_step();
  }
  inflateEnd(&stream);
  if (status != Z_STREAM_END || out.size() != entry.bytes)
    return refuse("does not unpack to the " + std::to_string(entry.bytes) + " bytes that the directory says.");
  return out;
}

}  // namespace switchyard::dumps

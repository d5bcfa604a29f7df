// A file of sums only: written at once, then given its name.
#include "engine/trace/counts.h"

#include <string>

#include "engine/base/text.h"
#include "engine/trace/file.h"
#include "engine/trace/h5.h"
#include "engine/trace/scan.h"
#include "engine/trace/schema.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using h5::Id;

Result<void> set_number(hid_t file, const char* name, uint64_t value, const std::string& shown) {
  const Id target(H5Aopen(file, name, H5P_DEFAULT));
  if (!target || H5Awrite(target, H5T_NATIVE_UINT64, &value) < 0)
    return fail(ErrorCode::kOutput, std::string(name) + " could not be written: " + h5::last_error() + ".", shown);
  return {};
}

Result<void> with_file(const fs::path& part, const std::string& shown, bool create, const auto& write) {
  const Id access = h5::file_access(h5::ChunkCache::kNone);
  Id file(create ? H5Fcreate(part.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access) : H5Fopen(part.c_str(), H5F_ACC_RDWR, access));
  if (!file) return fail(ErrorCode::kOutput, "could not be written: " + h5::last_error() + ".", shown);
  SY_CHECK(write(file));
  if (H5Fclose(file.release()) < 0) return fail(ErrorCode::kOutput, "could not be closed: " + h5::last_error() + ".", shown);
  return {};
}

}  // namespace

Result<void> write_counts_trace(const fs::path& path, const TraceHeader& header, const TraceCounts& counts, uint64_t tokens,
                                Overwrite overwrite) {
  h5::quiet();
  const fs::path part = path.string() + ".part";
  const std::string shown = printable(part.string(), 400);
  std::error_code ignored;
  if (overwrite == Overwrite::kAllow) fs::remove(part, ignored);
  SY_CHECK(with_file(part, shown, true, [&](hid_t file) -> Result<void> {
    SY_CHECK(schema::create_counts(file, header, counts));
    SY_CHECK(set_number(file, "n_tokens", tokens, shown));
    return set_number(file, "complete", 1, shown);
  }));
  // The checksum is taken of what reads back.
  TraceScan scan;
  {
    SY_TRY(const auto file, TraceFile::open(part));
    SY_TRY(scan, scan_trace(*file, nullptr));
  }
  SY_CHECK(with_file(part, shown, false, [&](hid_t file) { return set_number(file, "bookkeeping_crc32c", scan.bookkeeping_crc, shown); }));
  return move_into_place(part, path, overwrite);
}

}  // namespace switchyard

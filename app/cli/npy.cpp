// NumPy .npy files, see npy.h.
#include "app/cli/npy.h"

#include <bit>

#include <fmt/format.h>

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "values are written as they lie in memory");

Result<NpyWriter> NpyWriter::create(const std::string& path, uint64_t rows, uint64_t columns, bool overwrite) {
  SY_TRY(AtomicFile file, AtomicFile::create(path, overwrite ? Overwrite::kAllow : Overwrite::kRefuse));
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  constexpr size_t kBefore = 10;  // magic, version, length
  while ((kBefore + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string start = "\x93NUMPY";
  start += '\x01';
  start += '\0';
  start += static_cast<char>(header.size() & 0xFF);
  start += static_cast<char>(header.size() >> 8);
  SY_CHECK(file.write(start + header));
  return NpyWriter(std::move(file));
}

Result<void> NpyWriter::append(std::span<const float> values) {
  return file_.write({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

}  // namespace switchyard

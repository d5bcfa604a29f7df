// Zip archives as torch and numpy write them: entries stored or deflated, sizes within the file.
// Called by the readers of dumps, in the importer's child process. Rules: formats.md section 5.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/result.h"

namespace switchyard::dumps {

struct ZipEntry {
  std::string name;
  uint64_t begin = 0;      // of its bytes in the file
  uint64_t packed = 0, bytes = 0;
  bool deflated = false;
};

// Refused by name: encrypted or split archives, other methods, names that are absolute, lead out ("..") or stand twice,
// bytes outside the file.
Result<std::vector<ZipEntry>> read_zip(const OpenFile& file);

// The bytes of an entry, unpacked; at most `cap` of them.
Result<std::string> read_entry(const OpenFile& file, const ZipEntry& entry, uint64_t cap);

}  // namespace switchyard::dumps

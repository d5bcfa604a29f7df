// What a foreign HDF5 file may contain before we read any of its data (reliability.md section 4): plain
// datasets and groups inside the file, in sizes that fit.
// Used by the reader, verify and recover; no state.
#pragma once

#include <filesystem>
#include <string>

#include "engine/base/result.h"
#include "engine/trace/h5.h"

namespace switchyard {

struct TraceCaps {
  static constexpr uint64_t kDeclaredBytes = uint64_t(1) << 40;
  static constexpr uint64_t kObjects = 10'000;
  static constexpr int kDepth = 16;
  static constexpr uint64_t kChunkBytes = uint64_t(64) << 20;
  static constexpr uint64_t kReadBytes = uint64_t(256) << 20;  // of one read
};

// Opens read-only: as a clean file, else as one that a writer has open or was killed over (SWMR).
// `swmr` says which. Errors name the file.
Result<h5::Id> open_guarded(const std::filesystem::path& path, bool& swmr);

}  // namespace switchyard

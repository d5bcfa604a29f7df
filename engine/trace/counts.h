// Writes a trace that holds counts and no rows: what dumps of other engines often are (schema.h, kSums).
// Called by the importers, in their child process.
#pragma once

#include <cstdint>
#include <filesystem>

#include "engine/base/atomic_file.h"
#include "engine/base/result.h"
#include "engine/trace/trace.h"

namespace switchyard {

// tokens: that the counts are of; 0 where the dump does not tell (header.experts_per_token is 0 then too).
// Complete on return, or not there at all but for a .part; any name will do.
Result<void> write_counts_trace(const std::filesystem::path& path, const TraceHeader& header, const TraceCounts& counts,
                                uint64_t tokens, Overwrite overwrite);

}  // namespace switchyard

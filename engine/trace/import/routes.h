// JSONL with one record a token and layer: which keys it uses differs from program to program.
#pragma once

#include <string>

#include "engine/base/folder.h"
#include "engine/base/result.h"
#include "engine/trace/import/dump.h"

namespace switchyard::dumps {

struct RouteKeys {
  const char* sequence;  // a text or a number that tells sequences apart
  const char* token;     // place of the token; only its order counts
  const char* layer;
  const char* ids;
  const char* weights;
  const char* model;     // of a record that tells it; or nullptr
};

// Records may come in any order; those of a sequence need not lie together. Held in memory whole: 16 bytes and 12 a slot
// for each record. Refuses a token and layer that stand twice.
Result<void> read_routes(const OpenFile& file, const RouteKeys& keys, const ImportOptions& options, DumpSink& sink);

}  // namespace switchyard::dumps

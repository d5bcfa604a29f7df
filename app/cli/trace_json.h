// The TRACE object of specs/cli-json.md. Main thread.
#pragma once

#include "app/cli/output.h"
#include "engine/trace/trace.h"

namespace switchyard {

inline Document trace_json(const TraceInfo& info) {
  return {{"path", info.path.string()},   {"tokens", info.tokens},   {"sequences", info.sequences},
          {"layers", info.layers},        {"experts", info.experts}, {"top_k", info.top_k},
          {"moe_layers", info.moe_layers}};
}

}  // namespace switchyard

// The TRACE object of specs/cli-json.md. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/trace/trace.h"

namespace switchyard {

using Document = nlohmann::ordered_json;  // members stay in the order they are written

inline Document trace_json(const TraceInfo& info) {
  return {{"path", info.path.string()},   {"tokens", info.tokens},   {"sequences", info.sequences},
          {"layers", info.layers},        {"experts", info.experts}, {"top_k", info.top_k},
          {"moe_layers", info.moe_layers}};
}

}  // namespace switchyard

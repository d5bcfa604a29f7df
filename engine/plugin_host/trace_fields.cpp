#include "engine/plugin_host/trace_fields.h"

#include <algorithm>

#include "switchyard/plugin.h"

namespace switchyard {
namespace {

// In the order of SY_FIELD_*; position and sequence are always there.
constexpr const char* kFields[] = {
    "/routing/expert_id", "/routing/weight",    "/routing/router_logits", "/tokens/token_id", "", "",
    "/routing/entropy",   "/routing/topk_mass", "/routing/margin",        "/routing/lse"};

}  // namespace

void describe_trace(const TraceInfo& info, nlohmann::json& head) {
  std::vector<int> holds;
  for (const std::string field : kFields)
    holds.push_back(field.empty() || std::find(info.fields.begin(), info.fields.end(), field) != info.fields.end());
  head.update({{"rows", info.layers},
               {"experts", info.experts},
               {"k", info.top_k},
               {"tokens", info.tokens},
               {"sequences", info.sequences},
               {"layers", info.moe_layers},
               {"holds", holds}});
}

Result<Message> trace_values(const TraceReader& trace, const Message& asked) {
  const TraceInfo& info = trace.info();
  const uint64_t field = asked.number("field"), row = asked.number("row"), first = asked.number("first"),
                 count = asked.number("count");
  Message out;
  if (row >= uint64_t(info.layers) || first > info.tokens || count > info.tokens - first ||
      count * uint64_t(std::max(info.top_k, info.experts)) > (32 << 20)) {
    out.head["none"] = true;
    return out;
  }
  const auto put = [&](const auto& values) { out.put(std::span(values.data(), values.size())); };
  switch (field) {
    case SY_FIELD_ID: {
      SY_TRY(const auto ids, trace.expert_ids(int(row), first, count));
      std::vector<int32_t> wide;
      wide.reserve(ids.size());
      for (const ExpertId id : ids) wide.push_back(id == kNoExpert ? -1 : int32_t(id));
      put(wide);
      break;
    }
    case SY_FIELD_WEIGHT: {
      SY_TRY(const auto values, trace.weights(int(row), first, count));
      put(values);
      break;
    }
    case SY_FIELD_LOGITS: {
      SY_TRY(const auto values, trace.router_logits(int(row), first, count));
      put(values);
      break;
    }
    case SY_FIELD_TOKEN_ID: {
      SY_TRY(const auto values, trace.token_ids(first, count));
      put(values);
      break;
    }
    case SY_FIELD_POSITION: {
      SY_TRY(const auto values, trace.token_column("position", first, count));
      put(values);
      break;
    }
    case SY_FIELD_SEQUENCE: {
      SY_TRY(const auto offsets, trace.sequence_offsets());
      std::vector<uint32_t> values;
      size_t at = 0;
      for (uint64_t token = first; token < first + count; ++token) {
        while (at + 2 < offsets.size() && token >= uint64_t(offsets[at + 1])) ++at;
        values.push_back(uint32_t(at));
      }
      put(values);
      break;
    }
    case SY_FIELD_ENTROPY:
    case SY_FIELD_TOPK_MASS:
    case SY_FIELD_MARGIN:
    case SY_FIELD_LSE: {
      constexpr const char* kNames[] = {"entropy", "topk_mass", "margin", "lse"};
      SY_TRY(const auto values, trace.scalar(kNames[field - SY_FIELD_ENTROPY], int(row), first, count));
      put(values);
      break;
    }
    default:
      out.head["none"] = true;
  }
  return out;
}

}  // namespace switchyard

#include "app/session/active_experts.h"

#include <algorithm>

namespace switchyard {

ActiveExperts active_experts(const RunData& data, int moe_layer, uint64_t last, uint64_t window) {
  ActiveExperts out;
  const uint64_t end = std::min<uint64_t>(last + 1, data.tokens()), begin = end > window ? end - window : 0;
  uint64_t sum = 0;
  for (uint64_t t = begin; t < end; ++t) {
    const auto& frame = data.frames[t];
    if (!frame || frame->header().capture == CaptureLevel::kOff || !frame->passed(moe_layer)) continue;
    const size_t used = frame->layer(moe_layer).k_used;
    if (out.tokens.size() <= used) out.tokens.resize(used + 1);
    ++out.tokens[used];
    ++out.total;
    sum += used;
  }
  if (out.total > 0) out.mean = double(sum) / double(out.total);
  return out;
}

TableData active_experts_table(const ActiveExperts& counts) {
  TableData table;
  table.columns = {{"active experts", "a token", 0}, {"tokens", "", 0}, {"share", "% of the tokens counted", 2}};
  for (size_t n = 0; n < counts.tokens.size(); ++n)
    table.cells.insert(table.cells.end(), {int64_t(n), int64_t(counts.tokens[n]),
                                           100.0 * double(counts.tokens[n]) / double(counts.total)});
  return table;
}

}  // namespace switchyard

// Passes and their sum.
#include "engine/trace/import/counting.h"

namespace switchyard::dumps {

Result<void> give_counts(const Numbers& values, const std::string& where, DumpSink& sink) {
  if (values.shape.size() != 2 && values.shape.size() != 3)
    return fail(ErrorCode::kMalformed, "counts have " + std::to_string(values.shape.size()) + " axes, need [layers, experts] or [passes, layers, experts].", where);
  const bool by_pass = values.shape.size() == 3;
  const size_t layers = size_t(values.shape[by_pass ? 1 : 0]), experts = size_t(values.shape[by_pass ? 2 : 1]), one = layers * experts;
  if (one == 0 || layers > 2048 || experts > 65'535)
    return fail(ErrorCode::kMalformed, "counts have " + std::to_string(layers) + " layers and " + std::to_string(experts) + " experts.", where);
  DumpCounts counts;
  counts.where = where;
  counts.experts = int(experts);
  for (size_t layer = 0; layer < layers; ++layer) counts.layers.push_back(int(layer));
  counts.sums.count.resize(one);
  for (size_t at = 0; at < values.values.size(); at += one) {
    bool any = false;
    for (size_t i = 0; i < one; ++i) {
      SY_TRY(const int64_t count, whole(values.values[at + i], 0, by_pass ? int64_t(UINT32_MAX) : int64_t(1) << 52, where + ", counts"));
      counts.sums.count[i] += uint64_t(count);
      any = any || count > 0;
    }
    if (!by_pass || !any) continue;
    ++counts.sums.passes;
    for (size_t i = 0; i < one; ++i) counts.sums.pass_count.push_back(uint32_t(values.values[at + i]));
  }
  return sink.counts(counts);
}

}  // namespace switchyard::dumps

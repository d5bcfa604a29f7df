// One pass over the committed rows: checksums and the aggregates of /agg. Used by the clean close,
// verify and recover.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/file.h"
#include "engine/trace/writer.h"

namespace switchyard {

// crc32c over values stored [layers, tokens, …] in frame order: token by token, in a token layer by layer.
uint32_t frame_order_crc(std::span<const std::byte> column, uint64_t layers, uint64_t tokens, uint32_t before);

// Names and values of /agg, as the rows give them; matrices that are left out are empty.
struct TraceAggregates {
  std::vector<uint64_t> count, count_top1, coact, trans_top1, trans_topk;
  std::vector<double> prob_sum;
};

struct TraceScan {
  uint64_t tokens = 0;                // committed
  std::vector<std::string> problems;  // empty: every checksum matches
  TraceAggregates aggregates;
  uint32_t bookkeeping_crc = 0;       // of what the commit rows do not cover: texts, layers, sequences, epochs
};
Result<TraceScan> scan_trace(const TraceFile& file, Task* task);

// Calls `sound` with the columns between two commit rows, in order, where all checksums match up to the
// second; what lies behind a mismatch in its block goes to `damaged`. Stops at the first error of `sound`.
using SoundRows = std::function<Result<void>(uint64_t first, uint32_t slots, const TraceColumns& columns)>;
using DamagedRows = std::function<void(uint64_t first, uint64_t end, const std::string& what)>;
Result<void> for_each_commit(const TraceFile& file, const SoundRows& sound, const DamagedRows& damaged, Task* task);

}  // namespace switchyard

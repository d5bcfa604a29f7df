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
  std::vector<uint64_t> domain_count;                           // [D, L, E]; no domains: empty
  std::vector<uint64_t> srp_m4, srp_m16, srp_m64, srp_m256;     // [D or 1, L, E, m + 1] windows by activations in them
  // Token ids by rising number, and which experts their occurrences chose, as rows (layer, id) of a sparse matrix.
  std::vector<uint64_t> vocab_id, vocab_indptr, vocab_expert, vocab_count;
  std::vector<double> prob_sum;
};
struct CountSum {
  const char* path;
  std::vector<uint64_t> TraceAggregates::*values;
  bool ranked = false;  // of slots in a known order only
  bool later = false;   // files of the first versions lack it
};
inline constexpr CountSum kCountSums[] = {
    {"/agg/count", &TraceAggregates::count},
    {"/agg/count_top1", &TraceAggregates::count_top1, true},
    {"/agg/coact", &TraceAggregates::coact},
    {"/agg/trans_top1", &TraceAggregates::trans_top1, true},
    {"/agg/trans_topk", &TraceAggregates::trans_topk},
    {"/agg/domain_count", &TraceAggregates::domain_count, false, true},
    {"/agg/srp_hist_m4", &TraceAggregates::srp_m4, false, true},
    {"/agg/srp_hist_m16", &TraceAggregates::srp_m16, false, true},
    {"/agg/srp_hist_m64", &TraceAggregates::srp_m64, false, true},
    {"/agg/srp_hist_m256", &TraceAggregates::srp_m256, false, true},
    {"/agg/vocab/id", &TraceAggregates::vocab_id, false, true},
    {"/agg/vocab/indptr", &TraceAggregates::vocab_indptr, false, true},
    {"/agg/vocab/expert", &TraceAggregates::vocab_expert, false, true},
    {"/agg/vocab/count", &TraceAggregates::vocab_count, false, true},
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

// One function a format, see export.h. Private to this folder.
#pragma once

#include <memory>

#include "engine/trace/export/export.h"

namespace switchyard::exports {

struct Job {
  const ExportRequest& request;
  std::unique_ptr<TraceReader> trace;
  ExportFiles& files;
  std::vector<std::string> notes;
  Task* task = nullptr;

  const TraceInfo& info() const { return trace->info(); }
  bool has(std::string_view field) const;
  // kUsage, naming the field: what the format cannot do without.
  Result<void> need(std::string_view field) const;
  Result<void> step(double fraction) const;  // reports; kCancelled
};

// Whether some layer has several rows: two routers, or several passes.
bool several_rows(const TraceInfo& info);
// kUsage where it has, for formats that know one decision a layer.
Result<void> need_one_row(const TraceInfo& info);

// Tokens that are read at once.
inline constexpr uint64_t kRows = 65'536;

// Sums over the trace: what /agg holds, else what the rows give. reap_sum then has weights over the token's sum, as REAP's
// observer since March 2026.
struct Sums {
  TraceCounts counts;
  std::vector<uint64_t> first;  // [L, E] first choices; empty: the order of slots is not known, or counts only
};
Result<Sums> sums_of(const Job& job);

Result<void> write_npy(Job& job);
Result<void> write_csv(Job& job);
Result<void> write_jsonl(Job& job);
Result<void> write_parquet(Job& job);
Result<void> write_sglang_location(Job& job);
Result<void> write_vllm_eplb(Job& job);
Result<void> write_exflow(Job& job);
Result<void> write_esft(Job& job);
Result<void> write_reap(Job& job);

// Bytes before the values of an npy file.
std::string npy_header(std::string_view descr, const std::vector<uint64_t>& shape);
template <class T>
std::string_view bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace switchyard::exports

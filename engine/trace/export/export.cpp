// The list of formats, and the sums that several of them need.
#include "engine/trace/export/export.h"

#include <algorithm>
#include <optional>

#include "engine/base/text.h"
#include "engine/trace/export/writers.h"

namespace switchyard {
namespace {

using namespace exports;

std::vector<ExportFormat>& all_formats() {
  static std::vector<ExportFormat> list = {
      {"npy", "one .npy a field, in a folder", true, write_npy},
      {"csv", "counts and sums by layer and expert", false, write_csv},
      {"jsonl", "one line of JSON a token", false, write_jsonl},
      {"parquet", "a row a choice, compressed", false, write_parquet},
      {"sglang-location", "--init-expert-location of SGLang (.json or .pt): counts, or a placement (--placement)", false, write_sglang_location},
      {"vllm-eplb", "maps of vLLM's EPLB as JSON and .npy, in a folder (--placement)", true, write_vllm_eplb},
      {"exflow", "ExFlow's placement as CSV (--placement), or first choices as .npy", false, write_exflow},
      {"esft", "ESFT's configuration: the experts that a task relies on", false, write_esft},
      {"reap", "sums of REAP's observer (.json or .pt)", false, write_reap},
  };
  return list;
}

std::optional<int> layer_with_rows(const TraceInfo& info) {
  std::vector<int> layers = info.moe_layers;
  std::sort(layers.begin(), layers.end());
  const auto twice = std::adjacent_find(layers.begin(), layers.end());
  return twice == layers.end() ? std::nullopt : std::optional(*twice);
}

}  // namespace

namespace exports {

bool Job::has(std::string_view field) const { return std::find(info().fields.begin(), info().fields.end(), field) != info().fields.end(); }

Result<void> Job::need(std::string_view field) const {
  if (has(field)) return {};
  return fail(ErrorCode::kUsage, "the trace has no " + std::string(field) + ".", printable(info().path.string(), 400), info().counts_only ? "It holds counts only." : "");
}

Result<void> Job::step(double fraction) const {
  if (task == nullptr) return {};
  if (task->cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
  task->report(fraction, "Writing " + request.format);
  return {};
}

bool several_rows(const TraceInfo& info) {
  return !info.router_names.empty() && layer_with_rows(info).has_value();
}

Result<void> need_one_row(const TraceInfo& info) {
  const auto twice = layer_with_rows(info);
  if (!twice) return {};
  return fail(ErrorCode::kUsage, "layer " + std::to_string(*twice) + " has several rows of decisions, and the format knows one.", printable(info.path.string(), 400),
              "Export it with --to npy, csv, jsonl or parquet.");
}

Result<Sums> sums_of(const Job& job) {
  Sums out;
  const TraceInfo& info = job.info();
  if (info.counts_only) {
    SY_TRY(out.counts, job.trace->counts());
    return out;
  }
  const size_t experts = size_t(info.experts), k = size_t(info.top_k), values = size_t(info.layers) * experts;
  out.counts.count.resize(values);
  if (info.ranked) out.first.resize(values);
  const bool weighted = job.has("/routing/weight"), normed = weighted && job.has("/routing/out_norm");
  if (weighted) out.counts.weight_sum.resize(values);
  if (normed) out.counts.ean_sum.resize(values), out.counts.reap_sum.resize(values);
  for (int row = 0; row < info.layers; ++row) {
    for (uint64_t first = 0; first < info.tokens; first += kRows) {
      const uint64_t count = std::min(kRows, info.tokens - first);
      SY_TRY(const std::vector<ExpertId> ids, job.trace->expert_ids(row, first, count));
      std::vector<float> weights, norms;
      if (weighted) {
        SY_TRY(weights, job.trace->weights(row, first, count));
      }
      if (normed) {
        SY_TRY(norms, job.trace->out_norms(row, first, count));
      }
      double total = 0;  // of the token's weights
      for (size_t i = 0; i < ids.size(); ++i) {
        if (normed && i % k == 0) {
          total = 0;
          for (size_t slot = i; slot < i + k; ++slot) total += double(weights[slot]);
        }
        if (ids[i] == kNoExpert) continue;
        const size_t at = size_t(row) * experts + ids[i];
        ++out.counts.count[at];
        if (info.ranked && i % k == 0) ++out.first[at];
        if (weighted) out.counts.weight_sum[at] += double(weights[i]);
        if (!normed) continue;
        out.counts.ean_sum[at] += double(norms[i]);
        if (total > 0) out.counts.reap_sum[at] += double(weights[i]) / total * norms[i];
      }
    }
    SY_CHECK(job.step(double(row) / double(info.layers)));
  }
  return out;
}

}  // namespace exports

std::span<const ExportFormat> export_formats() { return all_formats(); }

void add_export_formats(std::vector<ExportFormat> more) {
  for (ExportFormat& format : more) all_formats().push_back(std::move(format));
}

Result<ExportReport> export_trace(const ExportRequest& request, Task* task) {
  const auto& list = all_formats();
  const auto format = std::find_if(list.begin(), list.end(), [&](const ExportFormat& one) { return request.format == one.name; });
  if (format == list.end()) {
    std::string names;
    for (const ExportFormat& one : list) names += (names.empty() ? "" : ", ") + std::string(one.name);
    return fail(ErrorCode::kUsage, quote(request.format) + " is no known format.", "--to", "Known are: " + names + ".");
  }
  SY_TRY(auto trace, TraceReader::open(request.trace, task));
  ExportFiles files(request.target, request.overwrite ? Overwrite::kAllow : Overwrite::kRefuse, request.dry_run);
  Job job{request, std::move(trace), files, {}, task};
  SY_CHECK(format->write(job));
  ExportReport report;
  SY_TRY(report.files, files.finish());
  report.notes = std::move(job.notes);
  return report;
}

}  // namespace switchyard

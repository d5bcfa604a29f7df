// The trace as it is: an array a field, a row an expert, a line a token.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/trace/export/writers.h"

namespace switchyard::exports {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Result<void> array(Job& job, const std::string& name, std::string_view descr, const std::vector<uint64_t>& shape, const std::vector<T>& values) {
  SY_CHECK(job.files.begin(name + ".npy"));
  SY_CHECK(job.files.write(npy_header(descr, shape)));
  return job.files.write(bytes_of(values));
}

// A field [L, N, width], row by row; width 0: [L, N].
template <class Read>
Result<void> rows(Job& job, const std::string& name, std::string_view descr, uint64_t width, const Read& read) {
  const uint64_t layers = uint64_t(job.info().layers), tokens = job.info().tokens;
  std::vector<uint64_t> shape{layers, tokens};
  if (width > 0) shape.push_back(width);
  SY_CHECK(job.files.begin(name + ".npy"));
  SY_CHECK(job.files.write(npy_header(descr, shape)));
  const uint64_t piece = std::max<uint64_t>(1, kRows * 16 / std::max<uint64_t>(width, 1));
  for (uint64_t row = 0; row < layers; ++row) {
    for (uint64_t first = 0; first < tokens; first += piece) {
      SY_TRY(const auto values, read(int(row), first, std::min(piece, tokens - first)));
      SY_CHECK(job.files.write(bytes_of(values)));
    }
    SY_CHECK(job.step(double(row) / double(layers)));
  }
  return {};
}

Result<void> counts_as_arrays(Job& job) {
  SY_TRY(const TraceCounts counts, job.trace->counts());
  const std::vector<uint64_t> shape{uint64_t(job.info().layers), uint64_t(job.info().experts)};
  SY_CHECK(array(job, "count", "<u8", shape, counts.count));
  if (counts.passes > 0) SY_CHECK(array(job, "pass_count", "<u4", {counts.passes, shape[0], shape[1]}, counts.pass_count));
  const std::pair<const char*, const std::vector<double>&> sums[] = {{"weight_sum", counts.weight_sum}, {"ean_sum", counts.ean_sum}, {"reap_sum", counts.reap_sum}};
  for (const auto& [name, values] : sums)
    if (!values.empty()) SY_CHECK(array(job, name, "<f8", shape, values));
  if (!counts.max_act.empty()) SY_CHECK(array(job, "max_act", "<f4", shape, counts.max_act));
  return {};
}

}  // namespace

std::string npy_header(std::string_view descr, const std::vector<uint64_t>& shape) {
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': (", descr);
  for (const uint64_t extent : shape) text += fmt::format("{}, ", extent);
  text += "), }";
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += char(text.size() & 0xFF);
  start += char(text.size() >> 8);
  return start + text;
}

std::vector<int32_t> signed_ids(const std::vector<ExpertId>& ids) {
  std::vector<int32_t> out;
  for (const ExpertId id : ids) out.push_back(id == kNoExpert ? -1 : int32_t(id));
  return out;
}

Result<void> write_npy(Job& job) {
  const TraceInfo& info = job.info();
  const std::vector<int32_t> layers(info.moe_layers.begin(), info.moe_layers.end());
  SY_CHECK(array(job, "moe_layers", "<i4", {layers.size()}, layers));
  if (info.counts_only) return counts_as_arrays(job);
  const TraceReader& trace = *job.trace;
  const uint64_t tokens = info.tokens, k = uint64_t(info.top_k);
  SY_TRY(const std::vector<int64_t> offsets, trace.sequence_offsets());
  SY_CHECK(array(job, "sequence_offset", "<i8", {offsets.size()}, offsets));
  if (job.has("/tokens/token_id")) {
    SY_TRY(const std::vector<TokenId> ids, trace.token_ids(0, tokens));
    SY_CHECK(array(job, "token_id", "<i4", {tokens}, ids));
  }
  for (const char* name : {"position", "phase", "recipe_epoch"}) {
    if (!job.has(std::string("/tokens/") + name)) continue;
    SY_TRY(const std::vector<uint32_t> values, trace.token_column(name, 0, tokens));
    SY_CHECK(array(job, name, "<u4", {tokens}, values));
  }
  SY_CHECK(rows(job, "expert_id", "<i4", k, [&](int row, uint64_t first, uint64_t count) -> Result<std::vector<int32_t>> {
    SY_TRY(const std::vector<ExpertId> ids, trace.expert_ids(row, first, count));
    return signed_ids(ids);
  }));
  if (job.has("/routing/pred_gate_id"))
    SY_CHECK(rows(job, "pred_gate_id", "<i4", k, [&](int row, uint64_t first, uint64_t count) -> Result<std::vector<int32_t>> {
      if (row == 0) return std::vector<int32_t>(size_t(count * k), -1);
      SY_TRY(const std::vector<ExpertId> ids, trace.guessed_ids(row, first, count));
      return signed_ids(ids);
    }));
  if (job.has("/routing/weight"))
    SY_CHECK(rows(job, "weight", "<f4", k, [&](int row, uint64_t first, uint64_t count) { return trace.weights(row, first, count); }));
  if (job.has("/routing/out_norm"))
    SY_CHECK(rows(job, "out_norm", "<f4", k, [&](int row, uint64_t first, uint64_t count) { return trace.out_norms(row, first, count); }));
  for (const char* name : {"entropy", "topk_mass", "margin", "lse", "block_cos"}) {
    if (job.has(std::string("/routing/") + name))
      SY_CHECK(rows(job, name, "<f4", 0, [&](int row, uint64_t first, uint64_t count) { return trace.scalar(name, row, first, count); }));
  }
  if (job.has("/routing/router_logits"))
    SY_CHECK(rows(job, "router_logits", "<f4", uint64_t(info.experts), [&](int row, uint64_t first, uint64_t count) { return trace.router_logits(row, first, count); }));
  job.notes.push_back("expert_id is -1 in an empty slot");
  return {};
}

Result<void> write_csv(Job& job) {
  SY_TRY(const Sums sums, sums_of(job));
  const TraceInfo& info = job.info();
  const TraceCounts& counts = sums.counts;
  const bool routers = several_rows(info);
  std::string text = routers ? "layer,router,expert,count" : "layer,expert,count";
  if (!sums.first.empty()) text += ",count_top1";
  const std::pair<const char*, const std::vector<double>&> reals[] = {{"weight_sum", counts.weight_sum}, {"ean_sum", counts.ean_sum}, {"reap_sum", counts.reap_sum}};
  for (const auto& [name, values] : reals)
    if (!values.empty()) text += std::string(",") + name;
  if (!counts.max_act.empty()) text += ",max_act";
  text += "\r\n";
  SY_CHECK(job.files.begin());
  for (size_t i = 0; i < counts.count.size(); ++i) {
    const size_t row = i / size_t(info.experts);
    text += fmt::format("{},{}{},{}", info.moe_layers[row], routers ? info.router_names[row] + "," : "", i % size_t(info.experts), counts.count[i]);
    if (!sums.first.empty()) text += fmt::format(",{}", sums.first[i]);
    for (const auto& [name, values] : reals)
      if (!values.empty()) text += fmt::format(",{}", values[i]);
    if (!counts.max_act.empty()) text += fmt::format(",{}", counts.max_act[i]);
    text += "\r\n";
  }
  return job.files.write(text);
}

Result<void> write_jsonl(Job& job) {
  SY_CHECK(job.need("/routing/expert_id"));
  const TraceInfo& info = job.info();
  const TraceReader& trace = *job.trace;
  SY_TRY(const std::vector<int64_t> offsets, trace.sequence_offsets());
  const bool weighted = job.has("/routing/weight"), routers = several_rows(info);
  const uint64_t piece = std::max<uint64_t>(1, kRows * 8 / uint64_t(info.layers * info.top_k));
  size_t sequence = 0;
  SY_CHECK(job.files.begin());
  for (uint64_t first = 0; first < info.tokens; first += piece) {
    const uint64_t count = std::min(piece, info.tokens - first);
    std::vector<std::vector<ExpertId>> ids;
    std::vector<std::vector<float>> weights;
    for (int row = 0; row < info.layers; ++row) {
      SY_TRY(ids.emplace_back(), trace.expert_ids(row, first, count));
      if (weighted) {
        SY_TRY(weights.emplace_back(), trace.weights(row, first, count));
      }
    }
    std::vector<std::pair<const char*, std::vector<uint32_t>>> columns;
    for (const char* name : {"position", "phase", "recipe_epoch"}) {
      if (!job.has(std::string("/tokens/") + name)) continue;
      SY_TRY(auto values, trace.token_column(name, first, count));
      columns.emplace_back(name, std::move(values));
    }
    std::vector<TokenId> token_ids;
    if (job.has("/tokens/token_id")) {
      SY_TRY(token_ids, trace.token_ids(first, count));
    }
    std::string text;
    for (uint64_t t = 0; t < count; ++t) {
      while (sequence + 2 < offsets.size() && first + t >= uint64_t(offsets[sequence + 1])) ++sequence;
      Json token{{"sequence", sequence}};
      if (!token_ids.empty()) token["token_id"] = token_ids[t];
      for (const auto& [name, values] : columns) token[name] = values[t];
      Json layers = Json::array();
      for (size_t row = 0; row < ids.size(); ++row) {
        Json layer{{"layer", info.moe_layers[row]}};
        if (routers) layer["router"] = info.router_names[row];
        layer["experts"] = Json::array();
        if (weighted) layer["weights"] = Json::array();
        for (size_t at = t * size_t(info.top_k), end = at + size_t(info.top_k); at < end; ++at) {
          if (ids[row][at] == kNoExpert) continue;
          layer["experts"].push_back(ids[row][at]);
          if (weighted) layer["weights"].push_back(double(weights[row][at]));
        }
        layers.push_back(std::move(layer));
      }
      token["layers"] = std::move(layers);
      text += token.dump();
      text += '\n';
    }
    SY_CHECK(job.files.write(text));
    SY_CHECK(job.step(double(first) / double(info.tokens)));
  }
  return {};
}

}  // namespace switchyard::exports

// See distil.h.
#include "engine/trace/distil.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "engine/routing/block.h"

namespace switchyard {
namespace {

constexpr uint64_t kPiece = 65536;  // tokens read at a time

Result<void> check_rows(const TraceInfo& info) {
  for (size_t row = 0; row + 1 < info.moe_layers.size(); ++row)
    if (info.moe_layers[row] == info.moe_layers[row + 1])
      return fail(ErrorCode::kUsage, fmt::format("layer {} has two routers, a table names one.", info.moe_layers[row]), info.path.string());
  if (info.tokens == 0) return fail(ErrorCode::kUsage, "the trace has no tokens.", info.path.string());
  return {};
}

Result<void> go_on(const Task* task) {
  if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped before the trace was read.");
  return {};
}

}  // namespace

Result<Distilled> distil_token_router(const TraceReader& trace, int64_t vocab, const Task* task) {
  const TraceInfo& info = trace.info();
  SY_CHECK(check_rows(info));
  const size_t experts = size_t(info.experts);
  SY_TRY(const std::vector<TokenId> tokens, trace.token_ids(0, info.tokens));
  Distilled out;
  std::vector<uint8_t> seen(size_t(vocab), 0);
  for (const TokenId id : tokens) {
    if (id < 0 || id >= vocab)
      return fail(ErrorCode::kUsage, fmt::format("the trace has token id {}, the model knows 0 to {}.", id, vocab - 1), info.path.string(),
                  "Give the model that was recorded.");
    out.token_ids_seen += !seen[size_t(id)];
    seen[size_t(id)] = 1;
  }
  for (int row = 0; row < info.layers; ++row) {
    SY_CHECK(go_on(task));
    std::vector<uint32_t> counts(size_t(vocab) * experts), all(experts);
    for (uint64_t first = 0; first < info.tokens; first += kPiece) {
      const uint64_t count = std::min(kPiece, info.tokens - first);
      SY_TRY(const std::vector<ExpertId> ids, trace.expert_ids(row, first, count));
      for (uint64_t t = 0; t < count; ++t) {
        const ExpertId chosen = ids[t * size_t(info.top_k)];
        if (chosen >= experts) continue;
        ++counts[size_t(tokens[first + t]) * experts + chosen];
        ++all[chosen];
      }
    }
    const auto most = [](auto begin, auto end) { return ExpertId(std::max_element(begin, end) - begin); };
    const ExpertId usual = most(all.begin(), all.end());
    SchemeData& data = out.file.layers[info.moe_layers[row]];
    data.columns = 1;
    data.table.resize(size_t(vocab), usual);
    uint64_t agreed = 0, routed = 0;
    for (size_t id = 0; id < size_t(vocab); ++id) {
      const auto begin = counts.begin() + ptrdiff_t(id * experts), end = begin + ptrdiff_t(experts);
      const ExpertId best = most(begin, end);
      if (begin[best] > 0) data.table[id] = best;
      agreed += begin[data.table[id]];
    }
    for (const uint32_t count : all) routed += count;
    out.agreement.push_back(routed ? double(agreed) / double(routed) : 0);
  }
  return out;
}

Result<Distilled> distil_thresholds(const TraceReader& trace, double c, const Task* task) {
  const TraceInfo& info = trace.info();
  SY_CHECK(check_rows(info));
  if (info.capture < CaptureLevel::kLogits)
    return fail(ErrorCode::kUsage, "the trace has no router logits.", info.path.string(), "Record again with --capture logits.");
  const size_t experts = size_t(info.experts);
  Distilled out;
  for (int row = 0; row < info.layers; ++row) {
    std::vector<std::vector<float>> scores(experts);
    for (uint64_t first = 0; first < info.tokens; first += kPiece) {
      SY_CHECK(go_on(task));
      const uint64_t count = std::min(kPiece, info.tokens - first);
      SY_TRY(const std::vector<float> logits, trace.router_logits(row, first, count));
      for (uint64_t t = 0; t < count; ++t) {
        const float* z = logits.data() + t * experts;
        const double max = *std::max_element(z, z + experts);
        double sum = 0;
        for (size_t e = 0; e < experts; ++e) sum += std::exp(z[e] - max);
        for (size_t e = 0; e < experts; ++e) scores[e].push_back(static_cast<float>(std::exp(z[e] - max) / sum));
      }
    }
    SchemeData& data = out.file.layers[info.moe_layers[row]];
    for (std::vector<float>& column : scores) {
      const auto rank = choice_capacity(c, int64_t(column.size()), int64_t(experts)) - 1;
      std::nth_element(column.begin(), column.begin() + rank, column.end(), std::greater<>());
      data.thresholds.push_back(column[size_t(rank)]);
    }
  }
  return out;
}

}  // namespace switchyard

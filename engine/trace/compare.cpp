// See compare.h.
#include "engine/trace/compare.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "engine/analysis/compare.h"

namespace switchyard {
namespace {

constexpr uint64_t kPiece = 32'768;  // tokens read at a time

struct Joined {
  uint64_t base = 0, other = 0, tokens = 0;  // first token on each side, and how many follow
};

Result<std::vector<Joined>> join(const TraceReader& base, const TraceReader& other, TraceComparison& out) {
  SY_TRY(const auto from, base.sequence_offsets());
  SY_TRY(const auto to, other.sequence_offsets());
  SY_TRY(const auto from_ids, base.sequence_sources());
  SY_TRY(const auto to_ids, other.sequence_sources());
  const auto unique = [](const std::vector<uint64_t>& ids) { return !ids.empty() && std::set<uint64_t>(ids.begin(), ids.end()).size() == ids.size(); };
  const bool by_source = unique(from_ids) && unique(to_ids);
  std::map<uint64_t, size_t> place;  // of a sequence in `other`
  for (size_t s = 0; s + 1 < to.size(); ++s) place[by_source ? to_ids[s] : s] = s;
  std::vector<Joined> joined;
  for (size_t s = 0; s + 1 < from.size(); ++s) {
    const auto found = place.find(by_source ? from_ids[s] : s);
    if (found == place.end()) continue;
    const auto length = std::min<int64_t>(from[s + 1] - from[s], to[found->second + 1] - to[found->second]);
    joined.push_back({uint64_t(from[s]), uint64_t(to[found->second]), uint64_t(length)});
    out.tokens += uint64_t(length);
  }
  out.left_out_base = base.info().tokens - out.tokens;
  out.left_out_other = other.info().tokens - out.tokens;
  if (out.tokens == 0)
    return fail(ErrorCode::kUsage, "no sequence of it is in " + base.info().path.string() + ".", other.info().path.string(),
                "Record both on the same texts.");
  return joined;
}

// [tokens, k] from [tokens, width], width <= k.
std::vector<ExpertId> widened(const std::vector<ExpertId>& ids, size_t width, size_t k) {
  std::vector<ExpertId> out(ids.size() / width * k, kNoExpert);
  for (size_t t = 0; t < ids.size() / width; ++t) std::copy_n(ids.begin() + ptrdiff_t(t * width), width, out.begin() + ptrdiff_t(t * k));
  return out;
}

}  // namespace

Result<TraceComparison> compare_traces(const TraceReader& base, const TraceReader& other, Task* task) {
  const TraceInfo &a = base.info(), &b = other.info();
  if (a.moe_layers != b.moe_layers || a.experts != b.experts)
    return fail(ErrorCode::kUsage, std::to_string(b.layers) + " rows and " + std::to_string(b.experts) + " experts do not fit the " +
                    std::to_string(a.layers) + " and " + std::to_string(a.experts) + " of " + a.path.string() + ".", b.path.string());
  for (const TraceInfo* info : {&a, &b})
    if (!info->ranked) return fail(ErrorCode::kUsage, "does not tell the order of its slots; ranks cannot be compared.", info->path.string());
  TraceComparison out;
  out.layers = a.moe_layers, out.experts = a.experts, out.k = std::max(a.top_k, b.top_k);
  SY_TRY(const auto joined, join(base, other, out));
  Saturation saturation(a.layers, out.k);
  out.first_difference.resize(size_t(a.layers));
  uint64_t done = 0;
  for (const Joined& sequence : joined) {
    for (uint64_t at = 0; at < sequence.tokens; at += kPiece) {
      if (task != nullptr && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped before the traces were read.");
      const uint64_t count = std::min(kPiece, sequence.tokens - at);
      SY_TRY(const auto ids_a, base.token_ids(sequence.base + at, count));
      SY_TRY(const auto ids_b, other.token_ids(sequence.other + at, count));
      const auto differs = std::mismatch(ids_a.begin(), ids_a.end(), ids_b.begin());
      if (differs.first != ids_a.end()) {
        const auto t = uint64_t(differs.first - ids_a.begin());
        return fail(ErrorCode::kUsage, "token " + std::to_string(sequence.other + at + t) + " is id " + std::to_string(*differs.second) + ", token " +
                        std::to_string(sequence.base + at + t) + " of " + a.path.string() + " is id " + std::to_string(*differs.first) + ".", b.path.string(),
                    "Traces can be compared over the same tokens: record both with score, or with run --token-ids.");
      }
      std::vector<bool> differed(count);
      for (int row = 0; row < a.layers; ++row) {
        SY_TRY(const auto raw_a, base.expert_ids(row, sequence.base + at, count));
        SY_TRY(const auto raw_b, other.expert_ids(row, sequence.other + at, count));
        const auto sets_a = widened(raw_a, size_t(a.top_k), size_t(out.k)), sets_b = widened(raw_b, size_t(b.top_k), size_t(out.k));
        SY_CHECK(saturation.feed(row, sets_a, sets_b));
        for (uint64_t t = 0; t < count; ++t) {
          if (differed[t]) continue;
          const auto begin = ptrdiff_t(t) * out.k, end = begin + out.k;
          if (std::is_permutation(sets_a.begin() + begin, sets_a.begin() + end, sets_b.begin() + begin)) continue;
          differed[t] = true;
          ++out.first_difference[size_t(row)];
        }
      }
      out.equal_tokens += uint64_t(std::count(differed.begin(), differed.end(), false));
      done += count;
      if (task != nullptr) task->report(double(done) / double(out.tokens), "compare");
    }
  }
  for (int row = 0; row < a.layers; ++row) {
    TraceComparison::Row& one = out.rows.emplace_back();
    for (int j = 1; j <= out.k; ++j) one.overlap.push_back(saturation.overlap(row, j));
    one.jaccard = saturation.jaccard(row);
  }
  return out;
}

}  // namespace switchyard

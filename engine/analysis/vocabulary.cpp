// See vocabulary.h.
#include "engine/analysis/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

}  // namespace

void VocabularyUse::count_ids(const RoutingSlab& slab) {
  for (int t = 0; t < slab.tokens; ++t) {
    if (!slab.mask.empty() && slab.mask[t] == 0) continue;
    ++counted_[slab.token_ids[t]];
    const size_t position = slab.position[t];
    if (position >= position_counts_.size()) position_counts_.resize(position + 1);
    ++position_counts_[position];
  }
}

Result<void> VocabularyUse::prepare(uint64_t max_bytes) {
  const auto bytes = [&](uint64_t least) {
    uint64_t entries = 0;
    for (const auto& [id, count] : counted_) entries += count >= least ? 2 : 0;
    for (const uint64_t count : position_counts_) entries += count >= least ? 1 : 0;
    return entries * uint64_t(rows_) * uint64_t(experts_) * sizeof(uint32_t);
  };
  if (bytes(min_count_) > max_bytes) {
    uint64_t fits = std::max<uint64_t>(1, min_count_);
    while (bytes(fits) > max_bytes) fits *= 2;
    return fail(ErrorCode::kMemory, "the counts of " + std::to_string(counted_.size()) + " token ids over " + std::to_string(rows_) + " rows and " +
                    std::to_string(experts_) + " experts pass " + std::to_string(max_bytes >> 20) + " MiB.", "", "Use --min-count " + std::to_string(fits) + ".");
  }
  for (const auto& [id, count] : counted_)
    if (count >= min_count_) ids_.push_back(id);
  std::sort(ids_.begin(), ids_.end());
  for (const TokenId id : ids_) {
    slot_[id] = uint32_t(occurrences_.size());
    occurrences_.push_back(counted_[id]);
    tokens_ += counted_[id];
  }
  for (const uint64_t count : position_counts_) {
    position_slot_.push_back(count > 0 && count >= min_count_ ? uint32_t(position_occurrences_.size()) : kNone);
    if (position_slot_.back() != kNone) position_occurrences_.push_back(count);
  }
  counted_.clear();
  by_id_.resize(rows_);
  by_position_.resize(rows_);
  for (int row = 0; row < rows_; ++row) {
    by_id_[row].any.resize(ids_.size() * experts_);
    by_id_[row].first.resize(ids_.size() * experts_);
    by_position_[row].resize(position_occurrences_.size() * experts_);
  }
  return {};
}

Result<void> VocabularyUse::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  Table& table = by_id_[row];
  for (int t = 0; t < slab.tokens; ++t) {
    if (!slab.mask.empty() && slab.mask[t] == 0) continue;
    const auto chosen = slab.token(row, t);
    if (const auto found = slot_.find(slab.token_ids[t]); found != slot_.end()) {
      const size_t at = size_t(found->second) * experts_;
      for (const ExpertId id : chosen)
        if (id != kNoExpert) ++table.any[at + id];
      if (chosen[0] != kNoExpert) ++table.first[at + chosen[0]];
    }
    if (const uint32_t slot = position_slot_[slab.position[t]]; slot != kNone)
      for (const ExpertId id : chosen)
        if (id != kNoExpert) ++by_position_[row][size_t(slot) * experts_ + id];
  }
  return {};
}

double VocabularyUse::mean_std(const std::vector<uint32_t>& counts, const std::vector<uint64_t>& occurrences) const {
  if (occurrences.empty()) return 0;
  double sum = 0;
  for (size_t x = 0; x < occurrences.size(); ++x) {
    double mean = 0, squares = 0;
    const double scale = 1 / (double(k_) * double(occurrences[x]));
    for (int e = 0; e < experts_; ++e) mean += counts[x * experts_ + e] * scale / experts_;
    for (int e = 0; e < experts_; ++e) {
      const double distance = counts[x * experts_ + e] * scale - mean;
      squares += distance * distance;
    }
    sum += std::sqrt(squares / experts_);
  }
  return sum / double(occurrences.size());
}

VocabularyStats VocabularyUse::stats(int row) const {
  VocabularyStats stats;
  if (ids_.empty()) return stats;
  const Table& table = by_id_[row];
  std::vector<uint64_t> of_expert(experts_);
  std::vector<uint32_t> sorted;
  double predicted = 0, joint = 0, first_total = 0;
  for (size_t x = 0; x < ids_.size(); ++x) {
    const auto any = std::span(table.any).subspan(x * experts_, experts_), first = std::span(table.first).subspan(x * experts_, experts_);
    const double all = double(occurrences_[x]);
    const double best_first = *std::max_element(first.begin(), first.end()), best_any = *std::max_element(any.begin(), any.end());
    stats.max_vs_k1_unweighted += best_first / all / double(ids_.size());
    stats.max_vs_k1_weighted += best_first / double(tokens_);
    stats.max_vs_k_unweighted += best_any / all / double(ids_.size());
    stats.max_vs_k_weighted += best_any / double(tokens_);
    // What the id's k commonest experts hit is the sum of their counts, whichever of equal counts they are.
    sorted.assign(any.begin(), any.end());
    const size_t keep = std::min<size_t>(k_, sorted.size());
    std::partial_sort(sorted.begin(), sorted.begin() + keep, sorted.end(), std::greater<>());
    predicted += std::accumulate(sorted.begin(), sorted.begin() + keep, 0.0);
    for (int e = 0; e < experts_; ++e) {
      of_expert[e] += first[e];
      first_total += first[e];
    }
  }
  stats.predictor_recall = predicted / (double(k_) * double(tokens_));
  stats.std_by_id = mean_std(table.any, occurrences_);
  stats.std_by_position = mean_std(by_position_[row], position_occurrences_);
  double entropy = 0;
  for (const uint64_t count : of_expert)
    if (count > 0) entropy -= count / first_total * std::log(count / first_total);
  for (size_t x = 0; x < ids_.size(); ++x) {
    double of_id = 0;
    for (int e = 0; e < experts_; ++e) of_id += table.first[x * experts_ + e];
    for (int e = 0; e < experts_; ++e) {
      const double count = table.first[x * experts_ + e];
      if (count > 0) joint += count / first_total * std::log(count * first_total / (of_id * double(of_expert[e])));
    }
  }
  stats.uncertainty = entropy > 0 ? joint / entropy : 0;
  return stats;
}

std::vector<TokenShare> VocabularyUse::strongest(int row, ExpertId expert, size_t top) const {
  std::vector<TokenShare> out;
  for (size_t x = 0; x < ids_.size(); ++x) {
    const uint64_t count = by_id_[row].any[x * experts_ + expert];
    if (count > 0) out.push_back({ids_[x], count, double(count) / double(occurrences_[x])});
  }
  const size_t keep = std::min(top, out.size());
  std::partial_sort(out.begin(), out.begin() + keep, out.end(), [](const TokenShare& a, const TokenShare& b) {
    return a.share != b.share ? a.share > b.share : a.count != b.count ? a.count > b.count : a.id < b.id;
  });
  out.resize(keep);
  return out;
}

}  // namespace switchyard

// Vocabulary specialisation and context independence (specs/analyses.md A5): how far the token id alone, or the
// position alone, says which experts are chosen. Streaming in two walks: first the ids are counted, then the
// experts of those that occur often enough. No files. Rows may be fed from different threads in the second walk.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

struct VocabularyStats {
  // VS(e, x) = N_{x,e} / N_x, at the first choice alone (k1) and over all k.
  double max_vs_k1_unweighted = 0, max_vs_k1_weighted = 0;  // mean over ids, or over their occurrences, of max_e VS
  double max_vs_k_unweighted = 0, max_vs_k_weighted = 0;
  double std_by_id = 0;          // mean over ids of std_e N_{x,e} / (k N_x): high = independent of context
  double std_by_position = 0;    // the same with positions for ids
  double predictor_recall = 0;   // the k commonest experts of the id against those chosen, same tokens
  double uncertainty = 0;        // I(id; first choice) / H(first choice)
};

struct TokenShare {
  TokenId id = 0;
  uint64_t count = 0;  // occurrences routed to the expert
  double share = 0;    // of all occurrences of the id
};

class VocabularyUse {
 public:
  VocabularyUse(int rows, int experts, int k, uint64_t min_count) : rows_(rows), experts_(experts), k_(k), min_count_(min_count) {}

  // First walk: slab.token_ids must be there.
  void count_ids(const RoutingSlab& slab);
  // Ends the first walk. Refused when the tables would pass `max_bytes`; the message says which min_count fits.
  Result<void> prepare(uint64_t max_bytes = uint64_t(1) << 30);
  // Second walk.
  Result<void> feed(const RoutingSlab& slab, int row);

  size_t ids() const { return ids_.size(); }      // with at least min_count occurrences
  TokenId id(size_t x) const { return ids_[x]; }  // rising
  // [E]: occurrences of id number x that chose each expert, at any rank.
  std::span<const uint32_t> choices(int row, size_t x) const { return std::span(by_id_[row].any).subspan(x * experts_, experts_); }
  uint64_t tokens() const { return tokens_; }     // occurrences of those
  VocabularyStats stats(int row) const;
  // Ids by falling share of their occurrences that chose the expert, then count, then lower id.
  std::vector<TokenShare> strongest(int row, ExpertId expert, size_t top) const;

 private:
  struct Table {
    std::vector<uint32_t> any, first;  // [ids or positions, E]
  };
  double mean_std(const std::vector<uint32_t>& counts, const std::vector<uint64_t>& occurrences) const;

  int rows_, experts_, k_;
  uint64_t min_count_;
  std::unordered_map<TokenId, uint64_t> counted_;       // first walk
  std::vector<uint64_t> position_counts_;               // first walk
  std::vector<TokenId> ids_;                            // rising
  std::unordered_map<TokenId, uint32_t> slot_;          // of an id in the tables
  std::vector<uint64_t> occurrences_;                   // [ids]
  std::vector<uint32_t> position_slot_;                 // of a position; kNone: too rare
  std::vector<uint64_t> position_occurrences_;
  uint64_t tokens_ = 0;
  std::vector<Table> by_id_;                            // [rows]
  std::vector<std::vector<uint32_t>> by_position_;      // [rows][positions, E]
};

}  // namespace switchyard

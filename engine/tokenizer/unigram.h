// Unigram: of all ways to cut a piece into vocabulary entries, the one with the largest sum of scores (Viterbi).
// Rules: families.md, section 3.1, and the `tokenizers` package: unknown characters cost the lowest score - 10,
// runs of them become one. Immutable; any thread.
#pragma once

#include <array>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/tokenizer/model.h"

namespace switchyard {

class Unigram final : public TokenizerModel {
 public:
  // model: the file's "model". An id is the place in "vocab"; of equal pieces the last one counts.
  static Result<Unigram> read(const JsonView& model);

  Result<void> encode(std::string_view piece, std::vector<TokenId>& out) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Entry {
    std::string_view piece;  // into vocabulary_
    TokenId id;
    double score;
  };
  struct Best {  // the best way to reach a byte of the piece
    double score = 0;
    size_t from = kNone;
    TokenId id = -1;
  };
  static constexpr size_t kNone = std::numeric_limits<size_t>::max();
  // Calls found(length, entry) for each entry that `text` starts with, shortest first.
  template <class Found>
  void prefixes(std::string_view text, const Found& found) const;
  Result<std::vector<Best>> best_paths(std::string_view piece) const;
  Result<void> append(std::string_view part, std::vector<TokenId>& out) const;

  Vocabulary vocabulary_;
  std::vector<Entry> sorted_;                       // by piece
  std::array<std::pair<size_t, size_t>, 256> by_first_byte_{};  // ranges of sorted_
  std::array<std::optional<TokenId>, 256> byte_ids_{};
  std::optional<TokenId> unknown_;
  double unknown_score_ = 0;
  bool byte_fallback_ = false;
};

}  // namespace switchyard

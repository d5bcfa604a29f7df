// Byte-pair encoding of one piece: characters first, then merges, lowest rank first and leftmost among
// equals, in O(n log n), however long the piece. Immutable; any thread. Rules: families.md, section 3.2, rule 7.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/model.h"

namespace switchyard {

class Bpe final : public TokenizerModel {
 public:
  // model: the file's "model", vocabulary and merges in either spelling ("a b" or ["a", "b"]).
  static Result<Bpe> read(const JsonView& model);

  // An error where an unknown character needs an unk_token that the vocabulary lacks.
  Result<void> encode(std::string_view piece, std::vector<TokenId>& out) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    TokenId merged;
  };

  Result<void> read_settings(const JsonView& model);
  Result<void> read_merges(const JsonView& merges);
  Result<std::vector<TokenId>> characters(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<TokenId>& ids) const;
  void merge_all(std::vector<TokenId>& ids) const;
  static uint64_t key(TokenId left, TokenId right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::string unknown_piece_;  // empty: unknown characters are dropped
  std::optional<TokenId> unknown_;
  std::string subword_prefix_, word_suffix_;  // around the characters of a piece: all but the first, the last
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;                               // a piece that is in the vocabulary is taken whole
  bool byte_fallback_ = false;                               // unknown characters become their bytes
  std::array<std::optional<TokenId>, 256> byte_ids_{};
};

}  // namespace switchyard

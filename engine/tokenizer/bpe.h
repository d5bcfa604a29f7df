// Byte-pair encoding of one piece: characters first, then merges, lowest rank first and leftmost among
// equals, in O(n log n). Immutable; any thread. Rules: families.md, section 3.2, rule 7.
#pragma once

#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

class Bpe {
 public:
  // model: the file's "model", vocabulary and merges in either spelling ("a b" or ["a", "b"]).
  static Result<Bpe> read(const JsonView& model);

  void encode(std::string_view piece, std::vector<TokenId>& out) const;  // appends
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    TokenId merged;
  };

  Result<void> read_merges(const JsonView& merges);
  std::vector<TokenId> characters(std::string_view piece) const;
  void merge_all(std::vector<TokenId>& ids) const;
  static uint64_t key(TokenId left, TokenId right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;  // a piece that is in the vocabulary is taken whole
};

}  // namespace switchyard

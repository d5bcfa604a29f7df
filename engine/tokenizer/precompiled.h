// The Precompiled normalizer: SentencePiece's compiled table of replacements (families.md, section 3.1, T5, umT5
// and NLLB), a little-endian count of bytes, a double-array trie (darts-clone) and the replacements, each ended
// by NUL. Immutable after load; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/text.h"

namespace switchyard {

class Precompiled {
 public:
  // spec: {"precompiled_charsmap": base64}. Refused: no base64, a trie longer than the data, replacements that
  // are not UTF-8.
  static Result<Precompiled> read(const JsonView& spec);

  // By grapheme cluster of at most 5 bytes, else by character: the replacement of the shortest entry that the
  // cluster starts with takes the place of the whole cluster, as in the `tokenizers` package.
  Result<void> normalize(Text& text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view chunk) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace switchyard

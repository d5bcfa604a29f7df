// Added tokens: contents that are found in a text before anything else cuts it. Order and flags as the
// `tokenizers` package has them (families.md, section 3.2, rules 2 and 3). Immutable after load; any thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/text.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  std::string spelling;      // as it is handed to the decoder: normalized where that changes it
  bool single_word = false;  // only between characters that are no word characters
  bool lstrip = false;       // takes the whitespace before it
  bool rstrip = false;       // takes the whitespace behind it
  bool normalized = false;   // looked for in normalized text
  bool special = false;
};

// Part of a text: an added token (id), or plain text still to be encoded.
struct TextPart {
  Text text;
  std::optional<TokenId> id;
};

class AddedTokens {
 public:
  // list: the file's "added_tokens", or nullptr. An id comes from the model's vocabulary where the content is
  // in it, else it is counted on from the vocabulary's size; the listed id is not used, as in the `tokenizers`
  // package. Of two entries with the same content the later one counts.
  static Result<AddedTokens> read(const JsonView* list, const Vocabulary& vocabulary, const Normalizer* normalizer);

  // Cuts a text at the tokens that are looked for in raw, or in normalized, text.
  std::vector<TextPart> split_raw(const Text& text) const { return split(text, raw_); }
  std::vector<TextPart> split_normalized(const Text& text) const { return split(text, normalized_); }

  const AddedToken* find(TokenId id) const;  // nullptr: none
  std::optional<TokenId> find(std::string_view content) const;
  bool is_special(std::string_view content) const { return special_.contains(std::string(content)); }
  TokenId end_id() const { return by_id_.empty() ? 0 : by_id_.rbegin()->first + 1; }

 private:
  // Byte trie; the longest content at a position wins.
  class Trie {
   public:
    void add(std::string_view content, TokenId id);
    std::optional<std::pair<size_t, TokenId>> longest(std::string_view text) const;  // length, id
    bool empty() const { return nodes_.size() == 1; }

   private:
    struct Node {
      std::map<char, int> next;
      TokenId id = -1;
    };
    std::vector<Node> nodes_{1};
  };

  Result<void> add(AddedToken token, const Vocabulary& vocabulary, const Normalizer* normalizer);
  void build_tries();
  std::vector<TextPart> split(const Text& text, const Trie& trie) const;

  TokenId next_id_ = 0;
  std::map<TokenId, AddedToken> by_id_;
  std::unordered_map<std::string, TokenId> ids_;
  std::unordered_set<std::string> special_;
  Trie raw_, normalized_;
};

}  // namespace switchyard

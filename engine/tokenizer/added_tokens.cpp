// Added tokens, see added_tokens.h. Any thread.
#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "engine/base/text.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxContent = 256;  // bytes; bounds the search at each position of a text

Result<AddedToken> read_token(const JsonView& entry) {
  AddedToken token;
  SY_TRY(token.content, entry.text("content"));
  if (token.content.size() > kMaxContent)
    return entry.fail("has a content of " + std::to_string(token.content.size()) + " bytes; the limit is 256.");
  SY_CHECK(entry.integer_or("id", 0, 0, (1 << 24) - 1));
  SY_TRY(token.single_word, entry.boolean_or("single_word", false));
  SY_TRY(token.lstrip, entry.boolean_or("lstrip", false));
  SY_TRY(token.rstrip, entry.boolean_or("rstrip", false));
  SY_TRY(token.special, entry.boolean_or("special", false));
  SY_TRY(token.normalized, entry.boolean_or("normalized", !token.special));
  return token;
}

}  // namespace

Result<AddedTokens> AddedTokens::read(const JsonView* list, const Vocabulary& vocabulary,
                                      const Normalizer* normalizer) {
  AddedTokens added;
  if (!list) return added;
  SY_TRY(const auto entries, list->as_array());
  std::vector<AddedToken> tokens;
  std::unordered_set<std::string> seen;
  for (const JsonView& entry : entries) {
    SY_TRY(AddedToken token, read_token(entry));
    if (token.special && !token.content.empty()) added.special_.insert(token.content);
    if (!token.content.empty() && seen.insert(token.content).second) tokens.push_back(std::move(token));
  }
  SY_CHECK(added.give_ids(tokens, vocabulary, *list));
  // Special tokens are put into the tries first.
  std::stable_partition(tokens.begin(), tokens.end(), [&](const AddedToken& t) { return added.is_special(t.content); });
  SY_CHECK(added.build_tries(tokens, normalizer));
  return added;
}

Result<void> AddedTokens::give_ids(std::vector<AddedToken>& tokens, const Vocabulary& vocabulary,
                                   const JsonView& list) {
  const auto vocabulary_size = static_cast<TokenId>(vocabulary.size());
  TokenId next = vocabulary_size;
  for (AddedToken& token : tokens) {
    if (const auto known = vocabulary.find(token.content)) {
      token.id = *known;
    } else {
      token.id = next;
      if (const std::string* owner = vocabulary.piece(token.id))
        return list.fail("puts " + quote(token.content) + " at id " + std::to_string(token.id) +
                         ", which the vocabulary gives to " + quote(*owner) + ".");
    }
    next = std::max(next, token.id + 1);
    ids_.emplace(token.content, token.id);
    by_id_.emplace(token.id, token);
  }
  return {};
}

Result<void> AddedTokens::build_tries(const std::vector<AddedToken>& tokens, const Normalizer* normalizer) {
  for (const AddedToken& token : tokens) {
    if (!token.normalized) {
      raw_.add(token.content, token.id);
      continue;
    }
    std::string content = token.content;
    if (normalizer) {
      SY_TRY(content, normalizer->normalize(std::move(content)));
    }
    if (!content.empty()) normalized_.add(content, token.id);
  }
  return {};
}

std::vector<TextPart> AddedTokens::split(std::string_view text, const Trie& trie) const {
  std::vector<TextPart> parts;
  if (text.empty()) return parts;
  size_t plain = 0;  // start of the text not yet given to a part
  const auto add_plain = [&](size_t end) {
    if (plain < end) parts.push_back({std::string(text.substr(plain, end - plain)), std::nullopt});
  };
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    const auto match = trie.longest(text.substr(at));
    if (!match) {
      ++at;
      continue;
    }
    const auto [length, id] = *match;
    size_t begin = at, end = at + length;
    at = end;
    const AddedToken& token = by_id_.at(id);
    if (token.single_word &&
        (ends_with_word_character(text.substr(0, begin)) || starts_with_word_character(text.substr(end))))
      continue;
    if (token.lstrip) begin = std::max(begin - trailing_whitespace(text.substr(0, begin)), plain);
    if (token.rstrip) end += leading_whitespace(text.substr(end));
    add_plain(begin);
    parts.push_back({std::string(text.substr(begin, end - begin)), id});
    plain = end;
  }
  add_plain(text.size());
  return parts;
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto entry = by_id_.find(id);
  return entry == by_id_.end() ? nullptr : &entry->second;
}

std::optional<TokenId> AddedTokens::find(std::string_view content) const {
  const auto entry = ids_.find(std::string(content));
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

void AddedTokens::Trie::add(std::string_view content, TokenId id) {
  int node = 0;
  for (const char byte : content) {
    const auto [entry, is_new] = nodes_[node].next.emplace(byte, static_cast<int>(nodes_.size()));
    node = entry->second;
    if (is_new) nodes_.emplace_back();
  }
  if (nodes_[node].id < 0) nodes_[node].id = id;
}

std::optional<std::pair<size_t, TokenId>> AddedTokens::Trie::longest(std::string_view text) const {
  std::optional<std::pair<size_t, TokenId>> best;
  int node = 0;
  for (size_t length = 0; length < text.size();) {
    const auto entry = nodes_[node].next.find(text[length]);
    if (entry == nodes_[node].next.end()) break;
    node = entry->second;
    ++length;
    if (nodes_[node].id >= 0) best = {length, nodes_[node].id};
  }
  return best;
}

}  // namespace switchyard

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
  added.next_id_ = static_cast<TokenId>(vocabulary.size());
  if (!list) return added;
  SY_TRY(const auto entries, list->as_array());
  for (const JsonView& entry : entries) {
    SY_TRY(AddedToken token, read_token(entry));
    if (!token.content.empty()) SY_CHECK(added.add(std::move(token), vocabulary, normalizer));
  }
  added.build_tries();
  return added;
}

Result<void> AddedTokens::add(AddedToken token, const Vocabulary& vocabulary, const Normalizer* normalizer) {
  if (const auto known = find(token.content))
    token.id = *known;
  else if (const auto in_model = vocabulary.find(token.content))
    token.id = *in_model;
  else
    token.id = next_id_++;
  token.spelling = token.content;
  if (token.normalized && normalizer) {
    Text content{token.content, character_length(token.content)};
    SY_CHECK(normalizer->normalize(content));
    token.spelling = std::move(content.text);
  }
  if (token.special) special_.insert(token.content);
  ids_[token.content] = token.id;
  by_id_[token.id] = std::move(token);
  return {};
}

void AddedTokens::build_tries() {
  for (const auto& [id, token] : by_id_)
    if (!token.spelling.empty()) (token.normalized ? normalized_ : raw_).add(token.spelling, id);
}

std::vector<TextPart> AddedTokens::split(const Text& whole, const Trie& trie) const {
  const std::string_view text = whole.text;
  std::vector<TextPart> parts;
  size_t plain = 0;        // start of the text not yet given to a part
  size_t stripped_to = 0;  // whitespace that an earlier token took and that need not be walked again
  const auto add_plain = [&](size_t end) {
    if (plain < end) parts.push_back({whole.slice(plain, end), std::nullopt});
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
    if (token.lstrip && begin > plain) begin -= trailing_whitespace(text.substr(plain, begin - plain));
    if (token.rstrip) end = stripped_to = end < stripped_to ? stripped_to : end + leading_whitespace(text.substr(end));
    add_plain(begin);
    parts.push_back({Text{}, id});
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

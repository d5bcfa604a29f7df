// Byte-pair encoding, see bpe.h. Any thread.
#include "engine/tokenizer/bpe.h"

#include <queue>
#include <tuple>

#include "engine/base/text.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxAffix = 64;  // bytes added to every character of a text

Result<std::pair<std::string, std::string>> read_merge(const Json& merge, const std::string& document,
                                                       const std::string& path) {
  const auto refuse = [&] {
    return fail(ErrorCode::kMalformed,
                path + " is " + printable(merge.dump(-1, ' ', false, Json::error_handler_t::replace)) +
                    ", needs \"a b\" or [\"a\", \"b\"].",
                document);
  };
  if (merge.is_array()) {
    if (merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) return refuse();
    return std::pair{merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (!merge.is_string()) return refuse();
  const std::string text = merge.get<std::string>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return refuse();
  return std::pair{text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

Result<Bpe> Bpe::read(const JsonView& model) {
  Bpe bpe;
  SY_CHECK(bpe.read_settings(model));
  SY_TRY(const JsonView vocabulary, model.at("vocab"));
  SY_TRY(bpe.vocabulary_, Vocabulary::read(vocabulary));
  SY_TRY(const JsonView merges, model.at("merges"));
  SY_CHECK(bpe.read_merges(merges));
  bpe.unknown_ = bpe.vocabulary_.find(bpe.unknown_piece_);
  for (int byte = 0; byte < 256; ++byte)
    bpe.byte_ids_[byte] = bpe.vocabulary_.find(byte_piece(static_cast<uint8_t>(byte)));
  return bpe;
}

Result<void> Bpe::read_settings(const JsonView& model) {
  SY_TRY(const double dropout, model.number_or("dropout", 0));
  if (dropout != 0) return model.fail("has dropout, which makes ids random; it needs to be null or 0.");
  SY_TRY(unknown_piece_, model.text_or("unk_token", ""));
  SY_TRY(subword_prefix_, model.text_or("continuing_subword_prefix", ""));
  SY_TRY(word_suffix_, model.text_or("end_of_word_suffix", ""));
  if (subword_prefix_.size() > kMaxAffix || word_suffix_.size() > kMaxAffix)
    return model.fail("has a subword prefix or suffix of more than " + std::to_string(kMaxAffix) + " bytes.");
  SY_TRY(fuse_unknown_, model.boolean_or("fuse_unk", false));
  SY_TRY(byte_fallback_, model.boolean_or("byte_fallback", false));
  SY_TRY(ignore_merges_, model.boolean_or("ignore_merges", false));
  return {};
}

Result<void> Bpe::read_merges(const JsonView& merges) {
  if (!merges.json().is_array()) return merges.fail("needs to be a list of merges.");
  merges_.reserve(merges.json().size());
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.json().size(); ++i) {
    const Json& entry = merges.json()[i];
    if (entry.is_string() && entry.get_ref<const std::string&>().starts_with("#version")) continue;
    const std::string path = merges.path() + "/" + std::to_string(i);
    SY_TRY(const auto parts, read_merge(entry, merges.document(), path));
    const auto& [left, right] = parts;
    const auto id_of = [&](const std::string& piece) -> Result<TokenId> {
      if (const auto id = vocabulary_.find(piece)) return *id;
      return fail(ErrorCode::kMalformed,
                  path + " needs the piece " + quote(piece) + ", which is not in the vocabulary.", merges.document());
    };
    SY_TRY(const TokenId left_id, id_of(left));
    SY_TRY(const TokenId right_id, id_of(right));
    if (right.size() < subword_prefix_.size())
      return fail(ErrorCode::kMalformed, path + " is shorter than the continuing_subword_prefix.", merges.document());
    SY_TRY(const TokenId merged_id, id_of(left + right.substr(subword_prefix_.size())));
    merges_[key(left_id, right_id)] = {rank++, merged_id};  // of a merge listed twice the later counts
  }
  return {};
}

Result<void> Bpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (ignore_merges_)
    if (const auto whole = vocabulary_.find(piece)) {
      out.push_back(*whole);
      return {};
    }
  SY_TRY(std::vector<TokenId> ids, characters(piece));
  merge_all(ids);
  out.insert(out.end(), ids.begin(), ids.end());
  return {};
}

// An unknown token waits for the next known character or the end: the bytes of a fallback go before it, as in the
// `tokenizers` package.
Result<std::vector<TokenId>> Bpe::characters(std::string_view piece) const {
  std::vector<TokenId> ids;
  ids.reserve(piece.size());
  bool unknown_waits = false;
  const auto put_unknown = [&] {
    if (unknown_waits) ids.push_back(*unknown_);
    unknown_waits = false;
  };
  std::string spelled;
  for (size_t at = 0, length = 0; at < piece.size(); at += length) {
    length = character_length(piece.substr(at));
    std::string_view character = piece.substr(at, length);
    if (!subword_prefix_.empty() || !word_suffix_.empty()) {
      spelled = (at > 0 ? subword_prefix_ : "") + std::string(character);
      if (at + length == piece.size()) spelled += word_suffix_;
      character = spelled;
    }
    if (const auto id = vocabulary_.find(character)) {
      put_unknown();
      ids.push_back(*id);
      continue;
    }
    if (byte_fallback_ && append_bytes(character, ids)) continue;
    if (unknown_piece_.empty()) continue;
    if (!unknown_)
      return fail(ErrorCode::kMalformed,
                  "the text has " + quote(character) + ", which is not in the vocabulary, and neither is the unk_token " +
                      quote(unknown_piece_) + ".");
    if (!fuse_unknown_) put_unknown();
    unknown_waits = true;
  }
  put_unknown();
  return ids;
}

bool Bpe::append_bytes(std::string_view character, std::vector<TokenId>& ids) const {
  for (const char byte : character)
    if (!byte_ids_[static_cast<uint8_t>(byte)]) return false;
  for (const char byte : character) ids.push_back(*byte_ids_[static_cast<uint8_t>(byte)]);
  return true;
}

void Bpe::merge_all(std::vector<TokenId>& ids) const {
  struct Symbol {
    TokenId id;
    int previous, next;
    bool alive = true;
  };
  struct Candidate {
    uint32_t rank;
    int left;
    TokenId merged;
    bool operator>(const Candidate& other) const { return std::tie(rank, left) > std::tie(other.rank, other.left); }
  };
  const int count = static_cast<int>(ids.size());
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (int i = 0; i < count; ++i) symbols.push_back({ids[i], i - 1, i + 1 < count ? i + 1 : -1});

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](int left) {
    if (left < 0 || symbols[left].next < 0) return;
    const auto merge = merges_.find(key(symbols[left].id, symbols[symbols[left].next].id));
    if (merge != merges_.end()) queue.push({merge->second.rank, left, merge->second.merged});
  };
  for (int i = 0; i + 1 < count; ++i) propose(i);

  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.left];
    if (!left.alive || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const auto merge = merges_.find(key(left.id, right.id));
    if (merge == merges_.end() || merge->second.merged != top.merged) continue;  // its pair is gone
    right.alive = false;
    left = {top.merged, left.previous, right.next};
    if (left.next >= 0) symbols[left.next].previous = top.left;
    propose(left.previous);
    propose(top.left);
  }
  ids.clear();
  for (int i = count > 0 ? 0 : -1; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace switchyard

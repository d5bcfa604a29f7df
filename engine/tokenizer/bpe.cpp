// Byte-pair encoding, see bpe.h. Any thread.
#include "engine/tokenizer/bpe.h"

#include <queue>
#include <tuple>

#include "engine/base/text.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// Settings that other families use and this class lacks are refused, never passed over.
Result<void> refuse_foreign_settings(const JsonView& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    SY_TRY(const std::string text, model.text_or(key, ""));
    if (!text.empty())
      return model.fail("has " + std::string(key) + " " + quote(text) + ", which this reader does not support.");
  }
  SY_TRY(const bool byte_fallback, model.boolean_or("byte_fallback", false));
  if (byte_fallback) return model.fail("has byte_fallback (SentencePiece BPE), which this reader does not support.");
  SY_TRY(const double dropout, model.number_or("dropout", 0));
  if (dropout != 0) return model.fail("has dropout, which makes ids random; it needs to be null or 0.");
  return {};
}

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
  SY_CHECK(refuse_foreign_settings(model));
  Bpe bpe;
  SY_TRY(const JsonView vocabulary, model.at("vocab"));
  SY_TRY(bpe.vocabulary_, Vocabulary::read(vocabulary));
  SY_TRY(const JsonView merges, model.at("merges"));
  SY_CHECK(bpe.read_merges(merges));
  SY_TRY(bpe.fuse_unknown_, model.boolean_or("fuse_unk", false));
  SY_TRY(bpe.ignore_merges_, model.boolean_or("ignore_merges", false));
  SY_TRY(const std::string unknown, model.text_or("unk_token", ""));
  if (!unknown.empty()) {
    bpe.unknown_ = bpe.vocabulary_.find(unknown);
    if (!bpe.unknown_) return model.fail("names the unk_token " + quote(unknown) + ", which is not in the vocabulary.");
  }
  return bpe;
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
    SY_TRY(const TokenId merged_id, id_of(left + right));
    merges_[key(left_id, right_id)] = {rank++, merged_id};  // of a merge listed twice the later counts
  }
  return {};
}

void Bpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (ignore_merges_)
    if (const auto whole = vocabulary_.find(piece)) {
      out.push_back(*whole);
      return;
    }
  std::vector<TokenId> ids = characters(piece);
  merge_all(ids);
  out.insert(out.end(), ids.begin(), ids.end());
}

std::vector<TokenId> Bpe::characters(std::string_view piece) const {
  std::vector<TokenId> ids;
  ids.reserve(piece.size());
  bool after_unknown = false;
  for (size_t at = 0, length = 0; at < piece.size(); at += length) {
    length = character_length(piece.substr(at));
    if (const auto id = vocabulary_.find(piece.substr(at, length))) {
      ids.push_back(*id);
      after_unknown = false;
    } else if (unknown_) {
      if (!(fuse_unknown_ && after_unknown)) ids.push_back(*unknown_);
      after_unknown = true;
    }
  }
  return ids;
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

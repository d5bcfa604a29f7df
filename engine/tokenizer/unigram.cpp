// Unigram, see unigram.h. Any thread.
#include "engine/tokenizer/unigram.h"

#include <algorithm>

#include "engine/base/text.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr size_t kMaxPiece = 1024;  // bytes; bounds the search at each character of a text

Error no_unknown() {
  return {ErrorCode::kMalformed, "the text has a character that is not in the vocabulary, and the model has no unk_id.",
          {}, {}};
}

}  // namespace

Result<Unigram> Unigram::read(const JsonView& model) {
  SY_TRY(const JsonView vocab, model.at("vocab"));
  if (!vocab.json().is_array()) return vocab.fail("needs to be a list of [piece, score].");
  const size_t size = vocab.json().size();
  std::vector<std::string> pieces;
  std::vector<double> scores;
  pieces.reserve(size);
  scores.reserve(size);
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < size; ++i) {
    const Json& entry = vocab.json()[i];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
      return vocab.fail("has at " + std::to_string(i) + " what is no [piece, score].");
    pieces.push_back(entry[0].get<std::string>());
    scores.push_back(entry[1].get<double>());
    if (pieces.back().size() > kMaxPiece)
      return vocab.fail("has at " + std::to_string(i) + " a piece of " + std::to_string(pieces.back().size()) +
                        " bytes; the limit is " + std::to_string(kMaxPiece) + ".");
    lowest = std::min(lowest, scores.back());
  }

  Unigram made;
  SY_TRY(made.vocabulary_, Vocabulary::from_list(std::move(pieces), vocab));
  SY_TRY(made.byte_fallback_, model.boolean_or("byte_fallback", false));
  made.unknown_score_ = lowest - kUnknownPenalty;
  if (model.has("unk_id")) {
    SY_TRY(const int64_t id, model.integer("unk_id", 0, static_cast<int64_t>(size) - 1));
    made.unknown_ = static_cast<TokenId>(id);
  }
  made.vocabulary_.for_each([&](const std::string& piece, TokenId id) {
    if (!piece.empty()) made.sorted_.push_back({piece, id, scores[static_cast<size_t>(id)]});
  });
  std::sort(made.sorted_.begin(), made.sorted_.end(), [](const Entry& a, const Entry& b) { return a.piece < b.piece; });
  for (size_t begin = 0, end = 0; begin < made.sorted_.size(); begin = end) {
    const char first = made.sorted_[begin].piece[0];
    while (end < made.sorted_.size() && made.sorted_[end].piece[0] == first) ++end;
    made.by_first_byte_[static_cast<uint8_t>(first)] = {begin, end};
  }
  for (int byte = 0; byte < 256; ++byte) made.byte_ids_[byte] = made.vocabulary_.find(byte_piece(static_cast<uint8_t>(byte)));
  return made;
}

template <class Found>
void Unigram::prefixes(std::string_view text, const Found& found) const {
  auto [begin, end] = by_first_byte_[static_cast<uint8_t>(text[0])];
  for (size_t length = 1; begin < end; ++length) {
    // All entries of the range share the first `length` bytes with the text; the shortest is the first.
    if (sorted_[begin].piece.size() == length) found(length, sorted_[begin++]);
    if (length == text.size()) return;
    const auto wanted = static_cast<uint8_t>(text[length]);
    const auto byte_of = [length](const Entry& entry) { return static_cast<uint8_t>(entry.piece[length]); };
    const auto first = sorted_.begin() + static_cast<ptrdiff_t>(begin), last = sorted_.begin() + static_cast<ptrdiff_t>(end);
    const auto low = std::partition_point(first, last, [&](const Entry& e) { return byte_of(e) < wanted; });
    const auto high = std::partition_point(low, last, [&](const Entry& e) { return byte_of(e) == wanted; });
    begin = static_cast<size_t>(low - sorted_.begin());
    end = static_cast<size_t>(high - sorted_.begin());
  }
}

Result<std::vector<Unigram::Best>> Unigram::best_paths(std::string_view piece) const {
  std::vector<Best> best(piece.size() + 1);
  const auto offer = [&](size_t from, size_t to, double score, TokenId id) {
    if (best[to].from == kNone || score > best[to].score) best[to] = {score, from, id};
  };
  for (size_t at = 0, length = 0; at < piece.size(); at += length) {
    length = character_length(piece.substr(at));
    const double here = best[at].score;
    bool single = false;  // an entry of exactly this character
    prefixes(piece.substr(at), [&](size_t bytes, const Entry& entry) {
      offer(at, at + bytes, entry.score + here, entry.id);
      single = single || bytes == length;
    });
    if (single) continue;
    if (best[at + length].from != kNone && !(unknown_score_ + here > best[at + length].score)) continue;
    if (!unknown_) return tl::unexpected<Error>(no_unknown());
    offer(at, at + length, unknown_score_ + here, *unknown_);
  }
  return best;
}

Result<void> Unigram::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (piece.empty()) return {};
  SY_TRY(const std::vector<Best> best, best_paths(piece));
  std::vector<Span> parts;  // from the end
  bool after_unknown = false;
  for (size_t end = piece.size(); end > 0; end = best[end].from) {
    const bool unknown = unknown_ && best[end].id == *unknown_;
    if (unknown && after_unknown)
      parts.back().begin = best[end].from;
    else
      parts.push_back({best[end].from, end});
    after_unknown = unknown;
  }
  for (auto part = parts.rbegin(); part != parts.rend(); ++part)
    SY_CHECK(append(piece.substr(part->begin, part->end - part->begin), out));
  return {};
}

// A run of unknown characters may be an entry itself, one that scores less than they do.
Result<void> Unigram::append(std::string_view part, std::vector<TokenId>& out) const {
  if (const auto id = vocabulary_.find(part)) {
    out.push_back(*id);
    return {};
  }
  if (byte_fallback_ && std::all_of(part.begin(), part.end(),
                                    [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)].has_value(); })) {
    for (const char byte : part) out.push_back(*byte_ids_[static_cast<uint8_t>(byte)]);
    return {};
  }
  if (!unknown_) return tl::unexpected<Error>(no_unknown());
  out.push_back(*unknown_);
  return {};
}

}  // namespace switchyard

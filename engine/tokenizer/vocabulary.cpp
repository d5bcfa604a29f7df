// The pieces of a model and their ids, see vocabulary.h. Any thread.
#include "engine/tokenizer/vocabulary.h"

#include <algorithm>

#include "engine/base/text.h"

namespace switchyard {
namespace {
constexpr TokenId kMaxId = (1 << 24) - 1;  // reliability.md, section 4
}

Result<Vocabulary> Vocabulary::read(const JsonView& object) {
  if (!object.json().is_object()) return object.fail("needs to be an object of pieces and ids.");
  if (object.json().empty()) return object.fail("has no pieces.");
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(object.json().size());
  vocabulary.pieces_.reserve(object.json().size());
  for (const auto& [piece, value] : object.json().items()) {
    SY_TRY(const int64_t id,
           JsonView(value, object.document(), object.path() + "/" + printable(piece)).as_integer(0, kMaxId));
    const auto [entry, is_new] = vocabulary.ids_.emplace(piece, static_cast<TokenId>(id));
    const auto [owner, is_free] = vocabulary.pieces_.emplace(static_cast<TokenId>(id), &entry->first);
    if (!is_free)
      return object.fail("gives id " + std::to_string(id) + " to both " + quote(*owner->second) + " and " +
                         quote(piece) + ".");
    vocabulary.end_id_ = std::max(vocabulary.end_id_, static_cast<TokenId>(id) + 1);
  }
  return vocabulary;
}

Result<Vocabulary> Vocabulary::from_list(std::vector<std::string> pieces, const JsonView& where) {
  if (pieces.empty()) return where.fail("has no pieces.");
  if (pieces.size() > size_t{kMaxId} + 1)
    return where.fail("has " + std::to_string(pieces.size()) + " pieces; the limit is 16777216.");
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(pieces.size());
  vocabulary.pieces_.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const auto entry = vocabulary.ids_.insert_or_assign(std::move(pieces[i]), id).first;
    vocabulary.pieces_.emplace(id, &entry->first);
  }
  vocabulary.end_id_ = static_cast<TokenId>(pieces.size());
  return vocabulary;
}

std::optional<TokenId> Vocabulary::find(std::string_view piece) const {
  const auto entry = ids_.find(piece);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

void Vocabulary::for_each(const std::function<void(const std::string&, TokenId)>& visit) const {
  for (const auto& [piece, id] : ids_) visit(piece, id);
}

const std::string* Vocabulary::piece(TokenId id) const {
  const auto entry = pieces_.find(id);
  return entry == pieces_.end() ? nullptr : entry->second;
}

}  // namespace switchyard

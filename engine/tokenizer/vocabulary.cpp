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

std::optional<TokenId> Vocabulary::find(std::string_view piece) const {
  const auto entry = ids_.find(piece);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

const std::string* Vocabulary::piece(TokenId id) const {
  const auto entry = pieces_.find(id);
  return entry == pieces_.end() ? nullptr : entry->second;
}

}  // namespace switchyard

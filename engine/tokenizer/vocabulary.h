// The pieces of a model and their ids, both ways. Checked at load: ids below 2^24, no id twice.
// Immutable after load; any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

class Vocabulary {
 public:
  static Result<Vocabulary> read(const JsonView& object);  // {"piece": id, ...}
  // ids: places in the list; of equal pieces the last one is found, all of them have their piece.
  // where: named in errors.
  static Result<Vocabulary> from_list(std::vector<std::string> pieces, const JsonView& where);

  std::optional<TokenId> find(std::string_view piece) const;
  const std::string* piece(TokenId id) const;  // nullptr: no such id
  size_t size() const { return pieces_.size(); }
  TokenId end_id() const { return end_id_; }  // largest id + 1
  void for_each(const std::function<void(const std::string&, TokenId)>& visit) const;  // in no order

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
  std::unordered_map<TokenId, const std::string*> pieces_;  // into the keys of ids_, which stay where they are
  TokenId end_id_ = 0;
};

}  // namespace switchyard

// Pickles, read and never run: an interpreter of a fixed set of opcodes (protocol 2 to 5) that knows the names of
// formats.md section 5 and builds what they mean itself; any other name is refused with its place.
// Called by the readers of dumps, in the importer's child process.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {

struct PickleNode {
  enum class Kind : uint8_t { kNone, kBool, kInteger, kReal, kText, kBytes, kList, kTuple, kSet, kDict, kName, kDType, kTensor };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double real = 0;
  std::string text;                  // kText, kBytes, kName ("torch._utils _rebuild_tensor_v2"), kDType ("<i8")
  std::vector<PickleNode*> items;    // of a dict: key, value, key, value
  std::unique_ptr<DumpTensor> tensor;

  bool is(Kind other) const { return kind == other; }
  bool is_sequence() const { return kind == Kind::kList || kind == Kind::kTuple; }
  // The value of a text key; nullptr: none.
  const PickleNode* find(std::string_view key) const;
};

// Everything that a pickle holds. Nodes refer to each other and may do so in circles: walk them by shape, not by recursion.
class Pickle {
 public:
  // storage: of the torch archive that the pickle lies in, by key and type; null: there is none.
  using FindStorage = std::function<Result<DumpTensor>(const std::string& key, DType type, int64_t elements)>;
  static Result<Pickle> parse(std::string_view bytes, const std::string& where, const FindStorage& storage);

  const PickleNode& root() const { return *root_; }
  const std::string& where() const { return where_; }

  // Numbers out of nested lists or tuples, or of a tensor; a number alone has shape []. At most four levels.
  Result<Numbers> numbers(const PickleNode& node, const std::string& what) const;
  // The same of a member of a dict.
  Result<Numbers> numbers_at(const PickleNode& dict, std::string_view key) const;
  Result<int64_t> integer(const PickleNode& node, const std::string& what, int64_t min, int64_t max) const;
  tl::unexpected<Error> fail(const std::string& what, const std::string& hint = {}) const;

 private:
  friend class PickleReader;
  std::string where_;
  std::deque<PickleNode> nodes_;
  PickleNode* root_ = nullptr;
  uint64_t budget_ = 0;  // of values that numbers() may visit: what was written once can be referred to often
};

// A .pt of torch.save (zip) or a bare .pkl. A file that lists tensors of a checkpoint is not told apart from a dump here.
Result<Pickle> open_pickle(const std::shared_ptr<const OpenFile>& file);

}  // namespace switchyard::dumps

// The interpreter. One table of names, one function that builds what a name means.
#include "engine/trace/import/pickle.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <unordered_map>

#include "engine/base/text.h"
#include "engine/trace/import/zip.h"
#include "engine/trace/rehearsal.h"

namespace switchyard::dumps {

using Kind = PickleNode::Kind;

namespace {

constexpr uint64_t kMaxPickleBytes = 256 << 20;
constexpr size_t kMaxNodes = 10'000'000;
constexpr int kMaxLevels = 4;

constexpr std::string_view kAllowed[] = {
    "collections OrderedDict", "collections Counter", "collections defaultdict",
    "numpy._core.multiarray scalar", "numpy.core.multiarray scalar",
    "numpy._core.multiarray _reconstruct", "numpy.core.multiarray _reconstruct",
    "numpy ndarray", "numpy dtype",
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "torch DoubleStorage", "torch FloatStorage", "torch HalfStorage", "torch BFloat16Storage", "torch LongStorage",
    "torch IntStorage", "torch ShortStorage", "torch CharStorage", "torch ByteStorage", "torch BoolStorage",
    "torch Size", "torch device"};

std::optional<DType> storage_type(std::string_view name) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"torch DoubleStorage", DType::kF64}, {"torch FloatStorage", DType::kF32}, {"torch HalfStorage", DType::kF16},
      {"torch BFloat16Storage", DType::kBF16}, {"torch LongStorage", DType::kI64}, {"torch IntStorage", DType::kI32},
      {"torch ShortStorage", DType::kI16}, {"torch CharStorage", DType::kI8}, {"torch ByteStorage", DType::kU8},
      {"torch BoolStorage", DType::kBool}};
  const auto found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& entry) { return entry.first == name; });
  return found == std::end(kTypes) ? std::nullopt : std::optional(found->second);
}

std::optional<DType> numpy_type(std::string_view name) {
  if (!name.empty() && (name[0] == '<' || name[0] == '|' || name[0] == '=')) name.remove_prefix(1);
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"b1", DType::kBool}, {"u1", DType::kU8}, {"i1", DType::kI8}, {"i2", DType::kI16}, {"u2", DType::kU16}, {"i4", DType::kI32},
      {"u4", DType::kU32}, {"i8", DType::kI64}, {"u8", DType::kU64}, {"f2", DType::kF16}, {"f4", DType::kF32}, {"f8", DType::kF64}};
  const auto found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& entry) { return entry.first == name; });
  return found == std::end(kTypes) ? std::nullopt : std::optional(found->second);
}

}  // namespace

class PickleReader {
 public:
  PickleReader(std::string_view bytes, const std::string& where, const Pickle::FindStorage& storage)
      : bytes_(bytes), storage_(storage) {
    out_.where_ = where;
  }

  Result<Pickle> read() {
    SY_TRY(const uint64_t proto, number(1));
    SY_TRY(const uint64_t version, number(1));
    if (proto != 0x80 || version < 2 || version > 5)
      return refuse("starts with " + quote(bytes_.substr(0, 2)) + "; pickles of protocol 2 to 5 are read.");
    for (;;) {
      opcode_at_ = at_;
      SY_TRY(const uint64_t opcode, number(1));
      ++out_.budget_;
      if ((out_.budget_ & 0xFFFF) == 0) rehearsal_step();
      if (opcode == '.') break;
      SY_CHECK(step(uint8_t(opcode)));
    }
    SY_TRY(out_.root_, pop());
    out_.budget_ += 1000;
    return std::move(out_);
  }

 private:
  tl::unexpected<Error> refuse(const std::string& what, const std::string& hint = {}) const {
    return fail(ErrorCode::kMalformed, "at byte " + std::to_string(opcode_at_) + " of its pickle: " + what, out_.where_, hint);
  }

  Result<std::string_view> take(uint64_t count) {
    if (count > bytes_.size() - at_) return refuse("needs " + std::to_string(count) + " bytes, " + std::to_string(bytes_.size() - at_) + " are left.");
    const auto part = bytes_.substr(at_, count);
    at_ += count;
    return part;
  }

  Result<uint64_t> number(int count) {
    SY_TRY(const std::string_view part, take(uint64_t(count)));
    uint64_t value = 0;
    std::memcpy(&value, part.data(), size_t(count));
    return value;
  }

  Result<std::string_view> line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) return refuse("has a name without an end.");
    const auto part = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return part;
  }

  Result<PickleNode*> make(Kind kind) {
    if (out_.nodes_.size() >= kMaxNodes) return refuse("holds more than " + std::to_string(kMaxNodes) + " values.");
    PickleNode& node = out_.nodes_.emplace_back();
    node.kind = kind;
    return &node;
  }

  Result<PickleNode*> pop() {
    const size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) return refuse("takes a value from an empty stack.");
    PickleNode* node = stack_.back();
    stack_.pop_back();
    return node;
  }

  Result<PickleNode*> top() {
    SY_TRY(PickleNode* const node, pop());
    stack_.push_back(node);
    return node;
  }

  Result<std::vector<PickleNode*>> pop_mark() {
    if (marks_.empty()) return refuse("has no mark to go back to.");
    std::vector<PickleNode*> items(stack_.begin() + ptrdiff_t(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  Result<void> push(Kind kind, const auto& fill) {
    SY_TRY(PickleNode* const node, make(kind));
    fill(*node);
    stack_.push_back(node);
    return {};
  }
  Result<void> push_text(Kind kind, int length_bytes) {
    SY_TRY(const uint64_t length, number(length_bytes));
    SY_TRY(const std::string_view part, take(length));
    return push(kind, [&](PickleNode& node) { node.text = part; });
  }
  Result<void> push_integer(int64_t value) {
    return push(Kind::kInteger, [&](PickleNode& node) { node.integer = value; });
  }
  Result<void> push_long(uint64_t length) {
    if (length > 8) return refuse("holds a whole number of " + std::to_string(length) + " bytes; up to 8 are read.");
    SY_TRY(const std::string_view part, take(length));
    uint64_t value = length > 0 && (part.back() & 0x80) ? ~uint64_t(0) : 0;
    std::memcpy(&value, part.data(), part.size());
    return push_integer(int64_t(value));
  }
  Result<void> push_tuple(std::vector<PickleNode*> items) {
    return push(Kind::kTuple, [&](PickleNode& node) { node.items = std::move(items); });
  }
  Result<void> push_last(size_t count) {
    std::vector<PickleNode*> items(count);
    for (size_t i = count; i-- > 0;) {
      SY_TRY(items[i], pop());
    }
    return push_tuple(std::move(items));
  }
  Result<void> push_name(std::string_view module, std::string_view name) {
    std::string whole = std::string(module) + " " + std::string(name);
    if (std::find(std::begin(kAllowed), std::end(kAllowed), whole) == std::end(kAllowed)) {
      return refuse("asks for " + quote(std::string(module) + "." + std::string(name)) + ", which is not on the list of names that are read.",
                    "A pickle is a program; this one is not run. Save plain tensors, numbers and lists.");
    }
    return push(Kind::kName, [&](PickleNode& node) { node.text = std::move(whole); });
  }

  Result<void> add_to(PickleNode& target, std::vector<PickleNode*> items, bool pairs) {
    if (pairs ? !target.is(Kind::kDict) : !target.is(Kind::kList) && !target.is(Kind::kSet)) return refuse("adds to a value that takes none.");
    if (pairs && items.size() % 2 != 0) return refuse("adds a key without a value.");
    target.items.insert(target.items.end(), items.begin(), items.end());
    return {};
  }

  Result<void> memoize(uint64_t key) {
    SY_TRY(PickleNode* const node, top());
    memo_[key] = node;
    return {};
  }
  Result<void> recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) return refuse("recalls value " + std::to_string(key) + ", which was not kept.");
    stack_.push_back(found->second);
    return {};
  }

  Result<void> step(uint8_t opcode) {
    switch (opcode) {
      case 0x95: {  // FRAME: a hint of length
        SY_TRY(const uint64_t ignored, number(8));
        static_cast<void>(ignored);
        return {};
      }
      case '(': marks_.push_back(stack_.size()); return {};
      case 'N': return push(Kind::kNone, [](PickleNode&) {});
      case 0x88: case 0x89: return push(Kind::kBool, [&](PickleNode& node) { node.integer = opcode == 0x88; });
      case 'J': { SY_TRY(const uint64_t value, number(4)); return push_integer(int32_t(uint32_t(value))); }
      case 'K': { SY_TRY(const uint64_t value, number(1)); return push_integer(int64_t(value)); }
      case 'M': { SY_TRY(const uint64_t value, number(2)); return push_integer(int64_t(value)); }
      case 0x8a: { SY_TRY(const uint64_t length, number(1)); return push_long(length); }
      case 0x8b: { SY_TRY(const uint64_t length, number(4)); return push_long(length); }
      case 'G': {
        SY_TRY(const uint64_t value, number(8));
        const uint64_t swapped = __builtin_bswap64(value);
        return push(Kind::kReal, [&](PickleNode& node) { std::memcpy(&node.real, &swapped, 8); });
      }
      case 0x8c: return push_text(Kind::kText, 1);
      case 'X': return push_text(Kind::kText, 4);
      case 0x8d: return push_text(Kind::kText, 8);
      case 'U': return push_text(Kind::kText, 1);
      case 'T': return push_text(Kind::kText, 4);
      case 'C': return push_text(Kind::kBytes, 1);
      case 'B': return push_text(Kind::kBytes, 4);
      case 0x8e: case 0x96: return push_text(Kind::kBytes, 8);
      case ')': return push_tuple({});
      case 't': { SY_TRY(auto items, pop_mark()); return push_tuple(std::move(items)); }
      case 0x85: case 0x86: case 0x87: return push_last(size_t(opcode - 0x84));
      case ']': return push(Kind::kList, [](PickleNode&) {});
      case '}': return push(Kind::kDict, [](PickleNode&) {});
      case 0x8f: return push(Kind::kSet, [](PickleNode&) {});
      case 'l': { SY_TRY(auto items, pop_mark()); return push(Kind::kList, [&](PickleNode& node) { node.items = std::move(items); }); }
      case 0x91: { SY_TRY(auto items, pop_mark()); return push(Kind::kSet, [&](PickleNode& node) { node.items = std::move(items); }); }
      case 'a': {
        SY_TRY(PickleNode* const item, pop());
        SY_TRY(PickleNode* const target, top());
        return add_to(*target, {item}, false);
      }
      case 'e': case 0x90: {
        SY_TRY(auto items, pop_mark());
        SY_TRY(PickleNode* const target, top());
        return add_to(*target, std::move(items), false);
      }
      case 's': {
        SY_TRY(PickleNode* const value, pop());
        SY_TRY(PickleNode* const key, pop());
        SY_TRY(PickleNode* const target, top());
        return add_to(*target, {key, value}, true);
      }
      case 'u': {
        SY_TRY(auto items, pop_mark());
        SY_TRY(PickleNode* const target, top());
        return add_to(*target, std::move(items), true);
      }
      case 'q': { SY_TRY(const uint64_t key, number(1)); return memoize(key); }
      case 'r': { SY_TRY(const uint64_t key, number(4)); return memoize(key); }
      case 0x94: return memoize(memo_.size());
      case 'h': { SY_TRY(const uint64_t key, number(1)); return recall(key); }
      case 'j': { SY_TRY(const uint64_t key, number(4)); return recall(key); }
      case 'c': {
        SY_TRY(const auto module, line());
        SY_TRY(const auto name, line());
        return push_name(module, name);
      }
      case 0x93: {
        SY_TRY(const PickleNode* const name, pop());
        SY_TRY(const PickleNode* const module, pop());
        if (!name->is(Kind::kText) || !module->is(Kind::kText)) return refuse("asks for a name that is no text.");
        return push_name(module->text, name->text);
      }
      case 'Q': return persistent();
      case 'R': case 0x81: return reduce();
      case 'b': return build();
      case '0': { SY_TRY(const PickleNode* const gone, pop()); static_cast<void>(gone); return {}; }
      case '1': { SY_TRY(const auto gone, pop_mark()); static_cast<void>(gone); return {}; }
      case '2': { SY_TRY(PickleNode* const node, top()); stack_.push_back(node); return {}; }
      default: {
        char text[8];
        std::snprintf(text, sizeof text, "0x%02x", opcode);
        return refuse(std::string("has the opcode ") + text + ", which is not on the list of what is read.",
                      "A pickle is a program; this one is not run.");
      }
    }
  }

  // A torch storage: ("storage", type, key, device, elements).
  Result<void> persistent() {
    SY_TRY(const PickleNode* const id, pop());
    const auto& items = id->items;
    if (!id->is(Kind::kTuple) || items.size() < 5 || items[0]->text != "storage" || !items[1]->is(Kind::kName) ||
        !items[2]->is(Kind::kText) || !items[4]->is(Kind::kInteger) || !storage_type(items[1]->text))
      return refuse("refers to something outside that is no torch storage.");
    if (!storage_) return refuse("refers to a torch storage, but lies in no torch archive.");
    SY_TRY(DumpTensor tensor, storage_(items[2]->text, *storage_type(items[1]->text), items[4]->integer));
    return push(Kind::kTensor, [&](PickleNode& node) { node.tensor = std::make_unique<DumpTensor>(std::move(tensor)); });
  }

  Result<std::vector<int64_t>> extents(const PickleNode& node) const {
    if (!node.is_sequence() || node.items.size() > size_t(kMaxRank)) return refuse("has a shape that is no short tuple.");
    std::vector<int64_t> out;
    for (const PickleNode* item : node.items) {
      if (!item->is(Kind::kInteger) || item->integer < 0) return refuse("has a shape with something else than whole numbers in it.");
      out.push_back(item->integer);
    }
    return out;
  }

  Result<void> reduce() {
    SY_TRY(const PickleNode* const arguments, pop());
    SY_TRY(PickleNode* const callee, pop());
    if (!callee->is(Kind::kName) || !arguments->is(Kind::kTuple)) return refuse("calls something that is no known name.");
    const std::string_view name = callee->text;
    const auto& items = arguments->items;
    if (name == "collections OrderedDict" || name == "collections Counter" || name == "collections defaultdict") return dictionary(name, items);
    if (name == "torch Size") return push_tuple(items.size() == 1 ? items[0]->items : std::vector<PickleNode*>{});
    if (name == "torch device") return push(Kind::kText, [&](PickleNode& node) { node.text = items.empty() ? "" : items[0]->text; });
    if (name == "torch._utils _rebuild_tensor_v2") return tensor(items);
    if (name == "torch._utils _rebuild_parameter") {
      if (items.empty() || !items[0]->is(Kind::kTensor)) return refuse("makes a parameter of something that is no tensor.");
      stack_.push_back(items[0]);
      return {};
    }
    if (name == "numpy dtype") {
      if (items.empty() || !items[0]->is(Kind::kText)) return refuse("makes a numpy type without a name.");
      return push(Kind::kDType, [&](PickleNode& node) { node.text = items[0]->text; });
    }
    if (name.ends_with(" scalar")) return scalar(items);
    if (name.ends_with(" _reconstruct"))  // its values come with BUILD
      return push(Kind::kTensor, [&](PickleNode& node) { node.tensor = std::make_unique<DumpTensor>(); });
    return refuse("calls " + quote(std::string(name)) + ", which is a type, not a function.");
  }

  Result<void> dictionary(std::string_view name, const std::vector<PickleNode*>& items) {
    SY_TRY(PickleNode* const node, make(Kind::kDict));
    stack_.push_back(node);
    // defaultdict(factory), OrderedDict(pairs), Counter(dict)
    for (const PickleNode* item : items) {
      if (item->is(Kind::kDict)) {
        node->items.insert(node->items.end(), item->items.begin(), item->items.end());
      } else if (item->is(Kind::kList)) {
        for (const PickleNode* pair : item->items) {
          if (!pair->is_sequence() || pair->items.size() != 2) return refuse("fills a dictionary with something else than pairs.");
          node->items.insert(node->items.end(), pair->items.begin(), pair->items.end());
        }
      } else if (!(item->is(Kind::kName) && name == "collections defaultdict") && !item->is(Kind::kNone)) {
        return refuse("makes a dictionary of something else.");
      }
    }
    return {};
  }

  Result<void> tensor(const std::vector<PickleNode*>& items) {
    if (items.size() < 4 || !items[0]->is(Kind::kTensor) || !items[1]->is(Kind::kInteger) || items[1]->integer < 0)
      return refuse("makes a tensor of something else than a storage and an offset.");
    auto made = std::make_unique<DumpTensor>(*items[0]->tensor);
    SY_TRY(made->shape, extents(*items[2]));
    SY_TRY(made->strides, extents(*items[3]));
    const uint64_t size = uint64_t(bits(made->dtype)) / 8, offset = uint64_t(items[1]->integer);
    if (offset > made->bytes / size) return refuse("makes a tensor behind the end of its storage.");
    made->begin += offset * size;
    made->bytes -= offset * size;
    if (const auto sound = made->check(); !sound) return refuse("makes a tensor that " + sound.error().what);
    return push(Kind::kTensor, [&](PickleNode& node) { node.tensor = std::move(made); });
  }

  Result<void> scalar(const std::vector<PickleNode*>& items) {
    if (items.size() != 2 || !items[0]->is(Kind::kDType) || !items[1]->is(Kind::kBytes)) return refuse("makes a numpy number of something else than a type and bytes.");
    const auto type = numpy_type(items[0]->text);
    if (!type) return refuse("makes a numpy number of type " + quote(items[0]->text) + "; little-endian numbers are read.");
    DumpTensor one{out_.where_, *type, {}, {}, nullptr, std::make_shared<const std::string>(items[1]->text), 0, items[1]->text.size()};
    SY_TRY(const Numbers value, one.read_all());
    const bool real = *type == DType::kF16 || *type == DType::kF32 || *type == DType::kF64;
    return push(real ? Kind::kReal : Kind::kInteger, [&](PickleNode& node) {
      node.real = value.values[0];
      if (!real) node.integer = int64_t(std::clamp(value.values[0], -9.2e18, 9.2e18));
    });
  }

  Result<void> build() {
    SY_TRY(const PickleNode* const state, pop());
    SY_TRY(PickleNode* const target, top());
    if (target->is(Kind::kDict)) return {};  // attributes of an OrderedDict: nothing of a dump
    if (target->is(Kind::kDType)) {
      if (!state->is(Kind::kTuple) || state->items.size() < 2 || !state->items[1]->is(Kind::kText)) return refuse("gives a numpy type a state that is none.");
      if (state->items[1]->text == ">") target->text = ">" + target->text;  // refused where it is used
      return {};
    }
    if (!target->is(Kind::kTensor) || target->tensor->inside || target->tensor->file) return refuse("gives a state to a value that takes none.");
    // ndarray: (version, shape, dtype, fortran order, bytes)
    const auto& items = state->items;
    if (!state->is(Kind::kTuple) || items.size() != 5 || !items[2]->is(Kind::kDType) || !items[4]->is(Kind::kBytes)) return refuse("gives an array a state that is none.");
    const auto type = numpy_type(items[2]->text);
    if (!type) return refuse("holds an array of type " + quote(items[2]->text) + "; little-endian numbers are read.");
    DumpTensor& array = *target->tensor;
    array.where = out_.where_;
    array.dtype = *type;
    SY_TRY(array.shape, extents(*items[1]));
    if (items[3]->integer != 0 && array.shape.size() > 1) return refuse("holds an array in Fortran order.");
    array.strides = row_major(array.shape);
    array.inside = std::make_shared<const std::string>(items[4]->text);
    array.bytes = items[4]->text.size();
    if (const auto sound = array.check(); !sound) return refuse("holds an array that " + sound.error().what);
    return {};
  }

  std::string_view bytes_;
  const Pickle::FindStorage& storage_;
  Pickle out_;
  size_t at_ = 0, opcode_at_ = 0;
  std::vector<PickleNode*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, PickleNode*> memo_;
};

const PickleNode* PickleNode::find(std::string_view key) const {
  if (kind != Kind::kDict) return nullptr;
  const PickleNode* found = nullptr;
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if (items[i]->is(Kind::kText) && items[i]->text == key) found = items[i + 1];  // the last one counts, as in Python
  return found;
}

Result<Pickle> Pickle::parse(std::string_view bytes, const std::string& where, const FindStorage& storage) {
  return PickleReader(bytes, where, storage).read();
}

tl::unexpected<Error> Pickle::fail(const std::string& what, const std::string& hint) const {
  return switchyard::fail(ErrorCode::kMalformed, what, where_, hint);
}

Result<Numbers> Pickle::numbers(const PickleNode& node, const std::string& what) const {
  if (node.is(Kind::kTensor)) {
    if (!node.tensor->inside && !node.tensor->file) return fail(what + " is an array without values.");
    auto read = node.tensor->read_all();
    if (!read) return fail(what + " " + read.error().what);
    return read;
  }
  Numbers out;
  uint64_t left = budget_;
  // Depth first with a stack of its own; the shape is that of the first branch, the others must fit it.
  struct Level {
    const PickleNode* node;
    size_t next;
  };
  std::vector<Level> levels;
  bool shaped = false;
  const auto leaf = [&](const PickleNode& value) -> Result<void> {
    if (value.is(Kind::kInteger) || value.is(Kind::kBool))
      out.values.push_back(double(value.integer));
    else if (value.is(Kind::kReal))
      out.values.push_back(value.real);
    else
      return fail(what + " holds something else than numbers.");
    if (shaped ? levels.size() != out.shape.size() : false) return fail(what + " is not rectangular.");
    shaped = true;
    return {};
  };
  if (!node.is_sequence()) {
    SY_CHECK(leaf(node));
    return out;
  }
  levels.push_back({&node, 0});
  out.shape.push_back(int64_t(node.items.size()));
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.node->items.size()) {
      levels.pop_back();
      continue;
    }
    if (left-- == 0) return fail(what + " refers to the same values too often.");
    const PickleNode& item = *level.node->items[level.next++];
    if (!item.is_sequence()) {
      SY_CHECK(leaf(item));
      continue;
    }
    if (levels.size() == size_t(kMaxLevels)) return fail(what + " is nested deeper than " + std::to_string(kMaxLevels) + " levels.");
    if (!shaped && out.shape.size() == levels.size()) out.shape.push_back(int64_t(item.items.size()));
    if (levels.size() >= out.shape.size() || out.shape[levels.size()] != int64_t(item.items.size())) return fail(what + " is not rectangular.");
    levels.push_back({&item, 0});
  }
  uint64_t total = 1;
  for (const int64_t extent : out.shape) total *= uint64_t(extent);
  if (total != out.values.size()) return fail(what + " is not rectangular.");
  return out;
}

Result<Numbers> Pickle::numbers_at(const PickleNode& dict, std::string_view key) const {
  const PickleNode* node = dict.find(key);
  if (node == nullptr) return fail("has no " + quote(key) + ".");
  return numbers(*node, quote(key));
}

Result<int64_t> Pickle::integer(const PickleNode& node, const std::string& what, int64_t min, int64_t max) const {
  SY_TRY(const Numbers value, numbers(node, what));
  if (value.values.size() != 1) return fail(what + " is not one number.");
  return whole(value.values[0], min, max, where_ + ": " + what);
}

Result<Pickle> open_pickle(const std::shared_ptr<const OpenFile>& file) {
  char magic[4] = {};
  if (file->size() >= 4) SY_CHECK(file->read(0, magic));
  if (std::memcmp(magic, "PK\x03\x04", 4) != 0) {
    SY_TRY(const std::string bytes, file->read_all(kMaxPickleBytes));
    return Pickle::parse(bytes, file->name(), nullptr);
  }
  SY_TRY(const std::vector<ZipEntry> entries, read_zip(*file));
  const ZipEntry* pickle = nullptr;
  std::string root;
  for (const ZipEntry& entry : entries) {
    const std::string folder = entry.name.substr(0, entry.name.find('/') + 1);
    if (folder.empty() || (!root.empty() && folder != root))
      return fail(ErrorCode::kMalformed, "holds " + quote(entry.name) + "; a torch archive has one folder.", file->name());
    root = folder;
    if (entry.deflated) return fail(ErrorCode::kMalformed, "entry " + quote(entry.name) + " is packed; torch stores its entries.", file->name());
    if (entry.name == folder + "data.pkl") pickle = &entry;
    if (entry.name == folder + "byteorder") {
      SY_TRY(const std::string order, read_entry(*file, entry, 16));
      if (order != "little") return fail(ErrorCode::kMalformed, "is " + quote(order) + "-endian; little is read.", file->name());
    }
  }
  if (pickle == nullptr) return fail(ErrorCode::kMalformed, "is a zip archive without data.pkl: torch did not write it.", file->name());
  SY_TRY(const std::string bytes, read_entry(*file, *pickle, kMaxPickleBytes));
  return Pickle::parse(bytes, file->name(), [&](const std::string& key, DType type, int64_t elements) -> Result<DumpTensor> {
    const auto entry = std::find_if(entries.begin(), entries.end(), [&](const ZipEntry& e) { return e.name == root + "data/" + key; });
    if (entry == entries.end()) return fail(ErrorCode::kMalformed, "has no storage " + quote(key) + ".", file->name());
    const uint64_t size = uint64_t(bits(type)) / 8;
    if (elements < 0 || uint64_t(elements) > entry->bytes / size)
      return fail(ErrorCode::kMalformed, "storage " + quote(key) + " declares " + std::to_string(elements) + " elements in " + std::to_string(entry->bytes) + " bytes.", file->name());
    return DumpTensor{file->name() + ": storage " + key, type, {elements}, {1}, file, nullptr, entry->begin, uint64_t(elements) * size};
  });
}

}  // namespace switchyard::dumps

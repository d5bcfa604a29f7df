// The GGUF container.
#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "engine/base/checked.h"
#include "engine/base/text.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_info.h"

namespace switchyard {
namespace {

constexpr std::string_view kDamaged = "The file is damaged or not a GGUF file: download it again.";
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr size_t kMaxDimensions = 4;
constexpr int64_t kMaxRopeFactors = 1 << 14;

// gguf_metadata_value_type of the format.
enum Type : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64, kTypes };
constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};  // of a string: its length

bool is_real(uint32_t type) {
  return type == kF32 || type == kF64;
}

// Sequential reading with a limit; every error names file and offset.
class Reader {
 public:
  explicit Reader(const OpenFile& file) : file_(file) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  tl::unexpected<Error> fail(uint64_t offset, std::string what) const {
    return switchyard::fail(ErrorCode::kMalformed, fmt::format("at byte {}: {}", offset, what), file_.name(),
                            std::string(kDamaged));
  }

  Result<void> bytes(std::span<char> out) {
    if (out.size() > left())
      return fail(at_, fmt::format("needs {} bytes, the file has {} more. Was it cut?", out.size(), left()));
    if (at_ + out.size() > kMaxGgufMetadataBytes)
      return fail(at_, fmt::format("the header is longer than the limit of {} bytes.", kMaxGgufMetadataBytes));
    for (size_t done = 0; done < out.size();) {
      if (at_ < begin_ || at_ >= begin_ + buffer_.size()) {
        begin_ = at_;
        buffer_.resize(std::min<uint64_t>(kPiece, left()));
        SY_CHECK(file_.read(begin_, buffer_));
      }
      const size_t from = at_ - begin_, count = std::min(buffer_.size() - from, out.size() - done);
      std::memcpy(out.data() + done, buffer_.data() + from, count);
      done += count;
      at_ += count;
    }
    return {};
  }

  template <class T>
  Result<T> number() {
    T value{};
    SY_CHECK(bytes(std::span(reinterpret_cast<char*>(&value), sizeof value)));
    return value;
  }

  Result<std::string> text(uint64_t limit) {
    const uint64_t start = at_;
    SY_TRY(const uint64_t length, number<uint64_t>());
    if (length > limit || length > left())
      return fail(start, fmt::format("a string declares {} bytes; the limit is {}, the file has {} more.", length,
                                     limit, left()));
    std::string out(length, '\0');
    SY_CHECK(bytes(out));
    return out;
  }

 private:
  static constexpr uint64_t kPiece = 64 << 10;
  const OpenFile& file_;
  uint64_t at_ = 0, begin_ = 0;
  std::string buffer_;
};

Result<int64_t> read_integer(Reader& in, uint32_t type) {
  switch (type) {
    case kU8:
      return in.number<uint8_t>();
    case kI8:
      return in.number<int8_t>();
    case kU16:
      return in.number<uint16_t>();
    case kI16:
      return in.number<int16_t>();
    case kU32:
      return in.number<uint32_t>();
    case kI32:
      return in.number<int32_t>();
    case kBool: {
      const uint64_t start = in.at();
      SY_TRY(const auto value, in.number<uint8_t>());
      if (value > 1) return in.fail(start, fmt::format("a boolean is {}, needs 0 or 1.", value));
      return value;
    }
    case kI64:
      return in.number<int64_t>();
    default: {
      const uint64_t start = in.at();
      SY_TRY(const auto value, in.number<uint64_t>());
      if (value > INT64_MAX) return in.fail(start, fmt::format("the integer {} is out of range.", value));
      return static_cast<int64_t>(value);
    }
  }
}

Result<double> read_real(Reader& in, uint32_t type) {
  if (type == kF32) return in.number<float>();
  return in.number<double>();
}

template <class T, class Read>
Result<GgufValue> read_array(uint64_t count, Read&& read) {
  std::vector<T> out;  // grows with what is read, not with what is declared
  for (uint64_t i = 0; i < count; ++i) {
    SY_TRY(T value, read());
    out.push_back(std::move(value));
  }
  return GgufValue(std::move(out));
}

Result<GgufValue> read_value(Reader& in, const std::string& key) {
  const uint64_t start = in.at();
  SY_TRY(const auto type, in.number<uint32_t>());
  if (type >= kTypes) return in.fail(start, fmt::format("key {} has the unknown type {}.", quote(key), type));
  if (type == kString) {
    SY_TRY(std::string text, in.text(kMaxGgufMetadataBytes));
    return GgufValue(std::move(text));
  }
  if (type == kBool) {
    SY_TRY(const int64_t value, read_integer(in, type));
    return GgufValue(value != 0);
  }
  if (is_real(type)) {
    SY_TRY(const double value, read_real(in, type));
    return GgufValue(value);
  }
  if (type != kArray) {
    SY_TRY(const int64_t value, read_integer(in, type));
    return GgufValue(value);
  }
  const uint64_t array = in.at();
  SY_TRY(const auto element, in.number<uint32_t>());
  SY_TRY(const auto count, in.number<uint64_t>());
  if (element >= kTypes || element == kArray)
    return in.fail(array, fmt::format("key {} is an array of type {}, needs scalars or strings.", quote(key), element));
  const auto least = checked_mul(count, static_cast<uint64_t>(kBytes[element]));
  if (!least || *least > in.left())
    return in.fail(array, fmt::format("key {} declares {} elements, the file has {} more bytes.", quote(key), count,
                                      in.left()));
  if (element == kString) return read_array<std::string>(count, [&] { return in.text(kMaxGgufMetadataBytes); });
  if (is_real(element)) return read_array<double>(count, [&] { return read_real(in, element); });
  return read_array<int64_t>(count, [&] { return read_integer(in, element); });
}

Result<GgufTensor> read_tensor(Reader& in) {
  const uint64_t start = in.at();
  GgufTensor tensor;
  SY_TRY(tensor.name, in.text(kMaxTensorNameBytes));
  const std::string text = "tensor " + quote(tensor.name);
  if (tensor.name.empty() ||
      std::any_of(tensor.name.begin(), tensor.name.end(), [](unsigned char c) { return c < 0x20 || c > 0x7E; }))
    return in.fail(start, text + " has a name that is empty or holds other characters than printable ASCII.");
  SY_TRY(const auto dimensions, in.number<uint32_t>());
  if (dimensions == 0 || dimensions > kMaxDimensions)
    return in.fail(start, fmt::format("{} has {} dimensions, needs 1 to {}.", text, dimensions, kMaxDimensions));
  for (uint32_t i = 0; i < dimensions; ++i) {
    SY_TRY(const auto dim, in.number<uint64_t>());
    if (dim == 0 || dim > INT64_MAX) return in.fail(start, fmt::format("{} has a dimension of {}.", text, dim));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
  }
  SY_TRY(const auto type, in.number<uint32_t>());
  const auto block = ggml_block(type);
  if (!block)
    return in.fail(start, fmt::format("{} has the type {}, which is not supported. Supported: {}.", text, type,
                                      supported_ggml_types()));
  tensor.type = block->type;
  SY_TRY(tensor.begin, in.number<uint64_t>());
  if (tensor.shape.back() % block->elements != 0)
    return in.fail(start, fmt::format("{} has {} columns, {} needs a multiple of {}.", text, tensor.shape.back(),
                                      block->name, block->elements));
  std::optional<uint64_t> bytes = static_cast<uint64_t>(block->bytes);
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    const auto dim = static_cast<uint64_t>(tensor.shape[i]);
    const bool last = i + 1 == tensor.shape.size();
    bytes = bytes ? checked_mul(*bytes, last ? dim / static_cast<uint64_t>(block->elements) : dim) : bytes;
  }
  const auto end = bytes ? checked_add(tensor.begin, *bytes) : std::nullopt;
  if (!end)
    return in.fail(start, fmt::format("{} has shape {}, whose size overflows 64 bits.", text, shape_text(tensor.shape)));
  tensor.end = *end;
  return tensor;
}

// Offsets count from `data`. Aligned, no overlap, no hole but padding, inside the file.
Result<void> place_tensors(std::vector<GgufTensor>& tensors, uint64_t data, uint64_t alignment, const Reader& in,
                           uint64_t file_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.begin < b.begin; });
  uint64_t expected = 0, ends = 0;
  for (GgufTensor& tensor : tensors) {
    const std::string text = "tensor " + quote(tensor.name);
    if (tensor.begin % alignment != 0)
      return in.fail(data, fmt::format("{} begins at byte {} of the data, needs a multiple of {}.", text, tensor.begin,
                                       alignment));
    if (tensor.begin < expected)
      return in.fail(data, fmt::format("{} begins at byte {} of the data, inside the tensor before it, which ends at {}.",
                                       text, tensor.begin, ends));
    if (tensor.begin > expected)
      return in.fail(data, fmt::format("{} begins at byte {} of the data and leaves a hole: {} was expected.", text,
                                       tensor.begin, expected));
    if (tensor.end > file_bytes - std::min(data, file_bytes))
      return in.fail(data, fmt::format("{} ends at byte {} of the data, the file holds {}. Was it cut?", text,
                                       tensor.end, file_bytes - std::min(data, file_bytes)));
    ends = tensor.end;
    expected = (tensor.end + alignment - 1) / alignment * alignment;
    tensor.begin += data;
    tensor.end += data;
  }
  if (!tensors.empty() && file_bytes - data > expected)
    return in.fail(data + expected, fmt::format("has {} bytes after the last tensor, needs none.",
                                                file_bytes - data - expected));
  return {};
}

// The tensors of Gguf::rope_factors; of any other form they stay unread and are refused by who needs them.
Result<void> read_rope_factors(const OpenFile& file, Gguf& gguf) {
  for (const GgufTensor& tensor : gguf.tensors) {
    if (tensor.name != "rope_freqs.weight" && !tensor.name.starts_with("rope_factors_")) continue;
    if (tensor.type != GgmlType::kF32 || tensor.shape.size() != 1 || tensor.shape[0] > kMaxRopeFactors) continue;
    std::vector<float> factors(static_cast<size_t>(tensor.shape[0]));
    SY_CHECK(
        file.read(tensor.begin, std::span(reinterpret_cast<char*>(factors.data()), factors.size() * sizeof(float))));
    gguf.rope_factors.emplace(tensor.name, std::move(factors));
  }
  return {};
}

}  // namespace

const GgufValue* Gguf::find(const std::string& key) const {
  const auto at = metadata.find(key);
  return at == metadata.end() ? nullptr : &at->second;
}

std::optional<std::string> Gguf::text(const std::string& key) const {
  const auto* value = find(key) ? std::get_if<std::string>(find(key)) : nullptr;
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<int64_t> Gguf::integer(const std::string& key) const {
  const auto* value = find(key) ? std::get_if<int64_t>(find(key)) : nullptr;
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> Gguf::number(const std::string& key) const {
  if (const auto value = integer(key)) return static_cast<double>(*value);
  const auto* value = find(key) ? std::get_if<double>(find(key)) : nullptr;
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<bool> Gguf::flag(const std::string& key) const {
  const auto* value = find(key) ? std::get_if<bool>(find(key)) : nullptr;
  return value ? std::optional(*value) : std::nullopt;
}

Result<Gguf> read_gguf(const OpenFile& file) {
  Reader in(file);
  char magic[4];
  SY_CHECK(in.bytes(magic));
  if (std::string_view(magic, 4) != "GGUF")
    return in.fail(0, fmt::format("starts with {}, a GGUF file starts with \"GGUF\".", quote({magic, 4})));
  SY_TRY(const auto version, in.number<uint32_t>());
  if (version != 2 && version != 3)
    return in.fail(4, version == 0x03000000 || version == 0x02000000
                          ? std::string("is big-endian, which is not supported.")
                          : fmt::format("has version {}, supported are 2 and 3.", version));
  SY_TRY(const auto tensors, in.number<uint64_t>());
  SY_TRY(const auto keys, in.number<uint64_t>());
  if (tensors > kMaxTensors) return in.fail(8, fmt::format("declares {} tensors, the limit is {}.", tensors, kMaxTensors));
  if (keys > kMaxGgufKeys) return in.fail(16, fmt::format("declares {} keys, the limit is {}.", keys, kMaxGgufKeys));

  Gguf out;
  for (uint64_t i = 0; i < keys; ++i) {
    const uint64_t start = in.at();
    SY_TRY(const std::string key, in.text(kMaxKeyBytes));
    SY_TRY(GgufValue value, read_value(in, key));
    if (!out.metadata.emplace(key, std::move(value)).second)
      return in.fail(start, fmt::format("key {} stands twice.", quote(key)));
  }
  uint64_t alignment = 32;
  if (const GgufValue* value = out.find("general.alignment")) {
    const auto* given = std::get_if<int64_t>(value);
    if (!given || *given < 8 || *given > int64_t{kMaxAlignment} || !std::has_single_bit(static_cast<uint64_t>(*given)))
      return in.fail(24, fmt::format("general.alignment is {}, needs a power of two from 8 to {}.",
                                     given ? std::to_string(*given) : std::string("no integer"), kMaxAlignment));
    alignment = static_cast<uint64_t>(*given);
  }
  std::set<std::string, std::less<>> names;
  for (uint64_t i = 0; i < tensors; ++i) {
    const uint64_t start = in.at();
    SY_TRY(GgufTensor tensor, read_tensor(in));
    if (!names.insert(tensor.name).second) return in.fail(start, fmt::format("tensor {} stands twice.", quote(tensor.name)));
    out.tensors.push_back(std::move(tensor));
  }
  const uint64_t data = (in.at() + alignment - 1) / alignment * alignment;
  if (!out.tensors.empty() && data > file.size()) return in.fail(in.at(), "the file ends before its data. Was it cut?");
  SY_CHECK(place_tensors(out.tensors, data, alignment, in, file.size()));
  SY_CHECK(read_rope_factors(file, out));
  return out;
}

}  // namespace switchyard

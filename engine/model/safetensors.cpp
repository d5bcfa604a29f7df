// The safetensors format.
#include "engine/model/safetensors.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "engine/base/checked.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxInteger = std::numeric_limits<int64_t>::max();
constexpr std::string_view kDamaged = "The file is damaged or not a safetensors file: download it again.";

tl::unexpected<Error> malformed(std::string_view file, std::string what) {
  return fail(ErrorCode::kMalformed, std::move(what), std::string(file), std::string(kDamaged));
}

std::string tensor_text(const TensorInfo& tensor) {
  return "tensor " + quote(tensor.name);
}

// product(shape) x bits / 8, or why not.
Result<uint64_t> bytes_needed(const TensorInfo& tensor, std::string_view file) {
  std::optional<uint64_t> total = 1;
  for (const int64_t dim : tensor.shape) total = total ? checked_mul(*total, static_cast<uint64_t>(dim)) : total;
  if (total) total = checked_mul(*total, static_cast<uint64_t>(bits(tensor.dtype)));
  if (!total)
    return malformed(file, fmt::format("{} has shape {}, whose size overflows 64 bits.", tensor_text(tensor),
                                       shape_text(tensor.shape)));
  if (*total % 8 != 0)
    return malformed(file, fmt::format("{} ({}, shape {}) has {} bits, not a whole number of bytes.",
                                       tensor_text(tensor), name(tensor.dtype), shape_text(tensor.shape), *total));
  return *total / 8;
}

// Names are shown and used as keys.
Result<void> check_name(const TensorInfo& tensor, std::string_view file) {
  if (tensor.name.size() > kMaxTensorNameBytes)
    return malformed(file, fmt::format("{} has a name of {} bytes, the limit is {}.", tensor_text(tensor),
                                       tensor.name.size(), kMaxTensorNameBytes));
  if (std::any_of(tensor.name.begin(), tensor.name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }))
    return malformed(file, fmt::format("{} has a control character in its name.", tensor_text(tensor)));
  return {};
}

Result<TensorInfo> parse_tensor(const std::string& tensor_name, const JsonView& entry, std::string_view file) {
  TensorInfo tensor{.name = tensor_name};
  SY_CHECK(check_name(tensor, file));
  SY_TRY(const std::string dtype_name, entry.text("dtype"));
  const auto dtype = parse_dtype(dtype_name);
  if (!dtype)
    return malformed(file, fmt::format("{} has the unknown dtype {}.", tensor_text(tensor), quote(dtype_name)));
  tensor.dtype = *dtype;

  SY_TRY(tensor.shape, entry.integers("shape", 0, kMaxInteger));
  if (tensor.shape.size() > kMaxTensorRank)
    return malformed(file, fmt::format("{} has {} dimensions, the limit is {}.", tensor_text(tensor),
                                       tensor.shape.size(), kMaxTensorRank));

  SY_TRY(const auto offsets, entry.integers("data_offsets", 0, kMaxInteger));
  if (offsets.size() != 2)
    return malformed(file,
                     fmt::format("{} has {} data_offsets, needs begin and end.", tensor_text(tensor), offsets.size()));
  const int64_t begin = offsets[0], end = offsets[1];
  tensor.begin = static_cast<uint64_t>(begin);
  tensor.end = static_cast<uint64_t>(end);
  if (end < begin)
    return malformed(file, fmt::format("{} ends at {} before it begins at {}.", tensor_text(tensor), end, begin));
  SY_TRY(const uint64_t needed, bytes_needed(tensor, file));
  if (needed != tensor.end - tensor.begin)
    return malformed(
        file, fmt::format("{} ({}, shape {}) needs {} bytes, its data_offsets [{}, {}] hold {}.", tensor_text(tensor),
                          dtype_name, shape_text(tensor.shape), needed, begin, end, end - begin));
  return tensor;
}

// Sorted by (begin, end): starts at 0, no hole, no overlap, ends with the file.
Result<void> check_layout(const std::vector<TensorInfo>& tensors, uint64_t data_bytes, std::string_view file) {
  uint64_t at = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin < at)
      return malformed(file,
                       fmt::format("{} begins at byte {} of the data, inside the tensor before it, which ends at {}.",
                                   tensor_text(tensor), tensor.begin, at));
    if (tensor.begin > at)
      return malformed(file,
                       fmt::format("{} begins at byte {} of the data and leaves a hole: the one before it ends at {}.",
                                   tensor_text(tensor), tensor.begin, at));
    at = tensor.end;
  }
  if (at > data_bytes)
    return malformed(file, fmt::format("{} ends at byte {} of the data, the file holds {}. Was it cut?",
                                       tensor_text(tensors.back()), at, data_bytes));
  if (at < data_bytes)
    return malformed(file, fmt::format("has {} bytes after the last tensor, needs none.", data_bytes - at));
  return {};
}

}  // namespace

Result<uint64_t> safetensors_header_bytes(std::string_view start, uint64_t file_bytes, std::string_view file) {
  if (file_bytes < 8 || start.size() < 8)
    return malformed(
        file,
        fmt::format("has {} bytes, a safetensors file starts with 8 that hold the length of its header.", file_bytes));
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(start[i]);
  if (length > kMaxHeaderBytes)
    return malformed(file, fmt::format("declares a header of {} bytes, the limit is {}.", length, kMaxHeaderBytes));
  if (length > file_bytes - 8)
    return malformed(file,
                     fmt::format("declares a header of {} bytes, {} follow. Was it cut?", length, file_bytes - 8));
  return length;
}

Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view header, uint64_t file_bytes,
                                                         std::string_view file) {
  if (!header.starts_with('{')) return malformed(file, "has a header that does not start with '{'.");
  // 12 values a tensor on average is twice what published files have; it bounds the memory of a hostile header.
  SY_TRY(const Json json, parse_json(header, std::string(file) + ": header",
                                     {.bytes = kMaxHeaderBytes, .depth = 4, .values = 12 * kMaxTensors}));
  const JsonView view(json, std::string(file) + ": header");
  if (const auto metadata = view.find("__metadata__")) {
    SY_TRY(const auto entries, metadata->as_object());
    for (const auto& [key, value] : entries) SY_CHECK(value.as_text());
  }
  if (json.size() > kMaxTensors + 1)
    return malformed(file, fmt::format("has {} tensors, the limit is {}.", json.size(), kMaxTensors));
  std::vector<TensorInfo> tensors;
  tensors.reserve(json.size());
  for (const auto& [tensor_name, entry] : json.items()) {
    if (tensor_name == "__metadata__") continue;
    const auto tensor_view = view.find(tensor_name);
    if (!tensor_view) return malformed(file, fmt::format("tensor {} is null, needs an object.", quote(tensor_name)));
    SY_TRY(TensorInfo tensor, parse_tensor(tensor_name, *tensor_view, file));
    tensors.push_back(std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const uint64_t data_start = 8 + header.size();
  SY_CHECK(check_layout(tensors, file_bytes - data_start, file));
  for (TensorInfo& tensor : tensors) {
    tensor.begin += data_start;
    tensor.end += data_start;
  }
  return tensors;
}

Result<std::vector<TensorInfo>> read_safetensors(const OpenFile& file) {
  std::string start(std::min<uint64_t>(8, file.size()), '\0');
  SY_CHECK(file.read(0, start));
  SY_TRY(const uint64_t length, safetensors_header_bytes(start, file.size(), file.name()));
  std::string header(length, '\0');
  SY_CHECK(file.read(8, header));
  return parse_safetensors_header(header, file.size(), file.name());
}

}  // namespace switchyard

// Reading pieces of arrays, and the npy header.
#include "engine/trace/import/tensor.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/base/checked.h"
#include "engine/base/text.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_info.h"
#include "engine/trace/rehearsal.h"

namespace switchyard::dumps {
namespace {

constexpr uint64_t kMaxNpyHeader = 1 << 16;

std::optional<uint64_t> product(const std::vector<int64_t>& shape) {
  std::optional<uint64_t> total = 1;
  for (const int64_t extent : shape) total = total && extent >= 0 ? checked_mul<uint64_t>(*total, uint64_t(extent)) : std::nullopt;
  return total;
}

template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

double element(DType dtype, const char* at) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8: return load<uint8_t>(at);
    case DType::kI8: return load<int8_t>(at);
    case DType::kI16: return load<int16_t>(at);
    case DType::kU16: return load<uint16_t>(at);
    case DType::kI32: return load<int32_t>(at);
    case DType::kU32: return load<uint32_t>(at);
    case DType::kI64: return double(load<int64_t>(at));
    case DType::kU64: return double(load<uint64_t>(at));
    case DType::kF16: return float_of_f16(load<uint16_t>(at));
    case DType::kBF16: return float_of_bf16(load<uint16_t>(at));
    case DType::kF32: return load<float>(at);
    case DType::kF64: return load<double>(at);
    default: return std::nan("");
  }
}

bool readable(DType dtype) {
  switch (dtype) {
    case DType::kBool: case DType::kU8: case DType::kI8: case DType::kI16: case DType::kU16: case DType::kI32: case DType::kU32:
    case DType::kI64: case DType::kU64: case DType::kF16: case DType::kBF16: case DType::kF32: case DType::kF64: return true;
    default: return false;
  }
}

// The value of a key of the header, a Python dict: text up to the comma or brace that ends it.
std::string header_value(std::string_view header, std::string_view key) {
  const size_t at = header.find("'" + std::string(key) + "'");
  if (at == std::string_view::npos) return "";
  size_t begin = header.find(':', at);
  if (begin == std::string_view::npos) return "";
  begin = header.find_first_not_of(' ', begin + 1);
  if (begin == std::string_view::npos) return "";
  size_t end = begin;
  if (header[begin] == '(') {
    end = header.find(')', begin);
    if (end != std::string_view::npos) ++end;
  } else if (header[begin] == '\'') {
    end = header.find('\'', begin + 1);
    if (end != std::string_view::npos) ++end;
  } else {
    end = header.find_first_of(",}", begin);
  }
  return end == std::string_view::npos ? "" : std::string(header.substr(begin, end - begin));
}

std::optional<DType> npy_dtype(std::string_view text) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"|b1", DType::kBool}, {"|u1", DType::kU8}, {"|i1", DType::kI8}, {"<i2", DType::kI16}, {"<u2", DType::kU16},
      {"<i4", DType::kI32}, {"<u4", DType::kU32}, {"<i8", DType::kI64}, {"<u8", DType::kU64}, {"<f2", DType::kF16},
      {"<f4", DType::kF32}, {"<f8", DType::kF64}};
  const auto found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& entry) { return entry.first == text; });
  return found == std::end(kTypes) ? std::nullopt : std::optional(found->second);
}

struct NpyHeader {
  std::string descr;  // "<i8"
  std::vector<int64_t> shape;
  uint64_t data = 0;  // bytes before the values
};

Result<NpyHeader> parse_npy(std::string_view start, const std::string& where) {
  const auto refuse = [&](const std::string& what) { return switchyard::fail(ErrorCode::kMalformed, what, where); };
  if (start.size() < 10 || start.substr(0, 6) != "\x93NUMPY") return refuse("is no npy array: it does not start with \\x93NUMPY.");
  const int version = start[6];
  if (version < 1 || version > 3) return refuse("has npy version " + std::to_string(version) + "; 1 to 3 are read.");
  const uint64_t fixed = version == 1 ? 10 : 12;
  if (start.size() < fixed) return refuse("is cut short in its npy header.");
  const uint64_t length = version == 1 ? load<uint16_t>(start.data() + 8) : load<uint32_t>(start.data() + 8);
  if (length > kMaxNpyHeader || length > start.size() - fixed) return refuse("declares an npy header of " + std::to_string(length) + " bytes.");
  const std::string_view text = start.substr(fixed, length);
  NpyHeader header;
  header.data = fixed + length;
  header.descr = header_value(text, "descr");
  if (header.descr.size() < 2 || header.descr.front() != '\'') return refuse("has an npy header without a plain \"descr\": " + quote(text) + ".");
  header.descr = header.descr.substr(1, header.descr.size() - 2);
  const std::string shape = header_value(text, "shape");
  if (shape.size() < 2 || shape.front() != '(') return refuse("has an npy header without a \"shape\".");
  for (size_t at = 1; at + 1 < shape.size();) {
    if (shape[at] == ' ' || shape[at] == ',') {
      ++at;
      continue;
    }
    int64_t extent = 0;
    const auto [end, problem] = std::from_chars(shape.data() + at, shape.data() + shape.size(), extent);
    if (problem != std::errc() || extent < 0 || header.shape.size() == size_t(kMaxRank)) return refuse("has the shape " + quote(shape) + " in its npy header.");
    header.shape.push_back(extent);
    at = size_t(end - shape.data());
  }
  size_t long_axes = 0;
  for (const int64_t extent : header.shape) long_axes += extent > 1;
  if (header_value(text, "fortran_order") != "False" && long_axes > 1)
    return switchyard::fail(ErrorCode::kMalformed, "is stored in Fortran order.", where, "Save it with numpy.ascontiguousarray.");
  return header;
}

Result<DumpTensor> make_npy(std::string_view start, uint64_t size, const std::string& where) {
  SY_TRY(const NpyHeader header, parse_npy(start, where));
  const auto dtype = npy_dtype(header.descr);
  if (!dtype) {
    return switchyard::fail(ErrorCode::kMalformed, "holds values of type " + quote(header.descr) + "; little-endian numbers are read.", where,
                            header.descr.find('O') != std::string::npos ? "Objects would be a program (a pickle); save plain numbers." : "");
  }
  DumpTensor tensor;
  tensor.where = where;
  tensor.dtype = *dtype;
  tensor.shape = header.shape;
  tensor.strides = row_major(tensor.shape);
  tensor.begin = header.data;
  tensor.bytes = size - header.data;
  return tensor;
}

}  // namespace

std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  // Wrapping is caught by check(), which looks at the shape first.
  for (size_t axis = shape.size(); axis-- > 1;) strides[axis - 1] = int64_t(uint64_t(strides[axis]) * uint64_t(shape[axis]));
  return strides;
}

tl::unexpected<Error> DumpTensor::fail(const std::string& what, const std::string& hint) const {
  return switchyard::fail(ErrorCode::kMalformed, what, where, hint);
}

uint64_t DumpTensor::count() const { return product(shape).value_or(0); }

Result<void> DumpTensor::check() const {
  if (!readable(dtype)) return fail("holds values of type " + std::string(name(dtype)) + ", which is not read here.");
  if (shape.size() > size_t(kMaxRank) || strides.size() != shape.size())
    return fail("has " + std::to_string(shape.size()) + " axes; up to " + std::to_string(kMaxRank) + " are read.");
  const auto elements = product(shape);
  const uint64_t size = uint64_t(bits(dtype)) / 8, held = bytes / size;
  // A view that repeats its values holds more elements than bytes: a few bytes would become gigabytes.
  if (!elements || *elements > held)
    return fail("has shape " + shape_text(shape) + ", its " + std::to_string(bytes) + " bytes hold " + std::to_string(held) + " values.");
  if (*elements == 0) return {};
  uint64_t last = 0;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    const auto step = strides[axis] < 0 ? std::nullopt : checked_mul<uint64_t>(uint64_t(shape[axis] - 1), uint64_t(strides[axis]));
    const auto sum = step ? checked_add(last, *step) : std::nullopt;
    if (!sum) return fail("has strides that do not fit its shape " + shape_text(shape) + ".");
    last = *sum;
  }
  if (last >= held) return fail("has strides that lead out of its " + std::to_string(bytes) + " bytes.");
  return {};
}

Result<Numbers> DumpTensor::read(int64_t first, int64_t rows) const {
  SY_CHECK(check());
  Numbers out;
  out.shape = shape;
  const int64_t all = shape.empty() ? 1 : shape[0];
  if (first < 0 || rows < 0 || first > all || rows > all - first) return fail("has " + std::to_string(all) + " rows.");
  if (!shape.empty()) out.shape[0] = rows;
  const uint64_t total = product(out.shape).value_or(0);
  if (total > kMaxValues)
    return fail("would give " + std::to_string(total) + " values at once; " + std::to_string(kMaxValues) + " are read.");
  if (total == 0) return out;
  // The bytes from the first to the last element of these rows.
  const uint64_t size = uint64_t(bits(dtype)) / 8;
  uint64_t from = 0, span = 1;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis == 0) from = uint64_t(first) * uint64_t(strides[0]);
    span += uint64_t(out.shape[axis] - 1) * uint64_t(strides[axis]);
  }
  if (span > kMaxValues) return fail("is spread over " + std::to_string(span) + " places; save it contiguous.");
  std::string buffer;
  const char* data = nullptr;
  if (inside) {
    data = inside->data() + begin + from * size;
  } else {
    buffer.resize(span * size);
    SY_CHECK(file->read(begin + from * size, buffer));
    data = buffer.data();
  }
  out.values.reserve(total);
  std::vector<int64_t> at(shape.size(), 0);
  for (uint64_t done = 0; done < total; ++done) {
    uint64_t place = 0;
    for (size_t axis = 0; axis < at.size(); ++axis) place += uint64_t(at[axis]) * uint64_t(strides[axis]);
    out.values.push_back(element(dtype, data + place * size));
    for (size_t axis = at.size(); axis-- > 0;) {
      if (++at[axis] < out.shape[axis]) break;
      at[axis] = 0;
    }
  }
  rehearsal_step();
  return out;
}

Result<DumpTensor> open_npy(std::shared_ptr<const OpenFile> file) {
  std::string start(std::min<uint64_t>(file->size(), kMaxNpyHeader + 12), '\0');
  SY_CHECK(file->read(0, start));
  SY_TRY(DumpTensor tensor, make_npy(start, file->size(), file->name()));
  tensor.file = std::move(file);
  SY_CHECK(tensor.check());
  return tensor;
}

Result<DumpTensor> open_npy(std::shared_ptr<const std::string> bytes, const std::string& where) {
  SY_TRY(DumpTensor tensor, make_npy(std::string_view(*bytes).substr(0, kMaxNpyHeader + 12), bytes->size(), where));
  tensor.inside = std::move(bytes);
  SY_CHECK(tensor.check());
  return tensor;
}

Result<std::vector<std::string>> npy_strings(const std::string& bytes, const std::string& where) {
  SY_TRY(const NpyHeader header, parse_npy(std::string_view(bytes).substr(0, kMaxNpyHeader + 12), where));
  std::vector<std::string> out;
  uint64_t width = 0;
  if (header.descr.size() < 3 || header.descr.substr(0, 2) != "<U") return out;
  std::from_chars(header.descr.data() + 2, header.descr.data() + header.descr.size(), width);
  const uint64_t count = product(header.shape).value_or(UINT64_MAX), held = (bytes.size() - header.data) / 4;
  if (width == 0) return out;
  if (count > held / width) return switchyard::fail(ErrorCode::kMalformed, "has fewer bytes than its npy header declares.", where);
  for (uint64_t i = 0; i < count; ++i) {
    std::string& text = out.emplace_back();
    for (uint64_t c = 0; c < width; ++c) {
      const auto code = load<uint32_t>(bytes.data() + header.data + (i * width + c) * 4);
      if (code == 0) break;
      text += code < 0x80 ? char(code) : '?';  // shown only, never looked up
    }
  }
  return out;
}

Result<std::vector<std::pair<std::string, DumpTensor>>> open_safetensors(const std::shared_ptr<const OpenFile>& file) {
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(*file));
  std::vector<std::pair<std::string, DumpTensor>> out;
  for (const TensorInfo& info : tensors) {
    DumpTensor tensor;
    tensor.where = file->name() + ": " + quote(info.name);
    tensor.dtype = info.dtype;
    tensor.shape = info.shape;
    tensor.strides = row_major(info.shape);
    tensor.file = file;
    tensor.begin = info.begin;
    tensor.bytes = info.end - info.begin;
    SY_CHECK(tensor.check());
    out.emplace_back(info.name, std::move(tensor));
  }
  return out;
}

Result<int64_t> whole(double value, int64_t min, int64_t max, const std::string& where) {
  if (!(value >= double(min) && value <= double(max)) || value != std::floor(value)) {
    char text[64];
    std::snprintf(text, sizeof text, "%.17g", value);
    return switchyard::fail(ErrorCode::kMalformed, std::string("has the value ") + text + ", needs a whole number from " +
                                                       std::to_string(min) + " to " + std::to_string(max) + ".", where);
  }
  return int64_t(value);
}

}  // namespace switchyard::dumps

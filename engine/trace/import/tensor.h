// Arrays inside dumps, whatever container they lie in: npy, npz, safetensors, the torch zip. Read in pieces along the
// first axis. Every size is checked against the bytes that are there before anything is allocated.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/result.h"
#include "engine/model/dtype.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {

inline constexpr int kMaxRank = 6;
inline constexpr uint64_t kMaxValues = uint64_t(1) << 26;  // of one piece that is read at once

// Rectangular numbers in row-major order.
struct Numbers {
  std::vector<int64_t> shape;
  std::vector<double> values;
  size_t rows() const { return shape.empty() ? 1 : size_t(shape[0]); }
};

struct DumpTensor {
  std::string where;                         // "file.pt: \"logical_count\"", for messages
  DType dtype = DType::kF32;
  std::vector<int64_t> shape, strides;       // strides in elements
  std::shared_ptr<const OpenFile> file;      // bytes [begin, begin + bytes) of it
  std::shared_ptr<const std::string> inside; // or of this text
  uint64_t begin = 0, bytes = 0;

  uint64_t count() const;  // of elements; the shape was checked when the tensor was made
  // Refuses: more than kMaxRank axes, negative extents, more elements than bytes hold, strides that lead out of them.
  Result<void> check() const;
  // Elements of first-axis rows [first, first + rows) in row-major order. A scalar has one row.
  Result<Numbers> read(int64_t first, int64_t rows) const;
  Result<Numbers> read_all() const { return read(0, shape.empty() ? 1 : shape[0]); }
  tl::unexpected<Error> fail(const std::string& what, const std::string& hint = {}) const;
};

std::vector<int64_t> row_major(const std::vector<int64_t>& shape);  // strides

// A .npy file, or one inside another file. Version 1 to 3, little-endian, C order.
Result<DumpTensor> open_npy(std::shared_ptr<const OpenFile> file);
Result<DumpTensor> open_npy(std::shared_ptr<const std::string> bytes, const std::string& where);

// The strings of an npy array of text (dtype <U), as UTF-8; empty where it is none.
Result<std::vector<std::string>> npy_strings(const std::string& bytes, const std::string& where);

// Tensors of a safetensors file by name.
Result<std::vector<std::pair<std::string, DumpTensor>>> open_safetensors(const std::shared_ptr<const OpenFile>& file);

// Whole numbers out of doubles; `max` inclusive. Errors name the tensor and the place.
Result<int64_t> whole(double value, int64_t min, int64_t max, const std::string& where);

}  // namespace switchyard::dumps

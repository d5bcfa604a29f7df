// The GGUF container (llama.cpp), versions 2 and 3, little-endian: metadata and where each tensor lies.
// Every count, length, offset and type is checked before it is used. Called while a checkpoint opens; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/result.h"
#include "engine/model/ggml_blocks.h"

namespace switchyard {

inline constexpr uint64_t kMaxGgufKeys = 65'536;
inline constexpr uint64_t kMaxGgufMetadataBytes = 256 << 20;

// A value of the metadata. Arrays hold scalars or strings; arrays of arrays are refused.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<std::string>>;

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;   // rows first, as safetensors writes it: the file's dimensions reversed
  uint64_t begin = 0, end = 0;  // bytes from the start of the file
  int part = 0;                 // of a split model, from 0
};

struct Gguf {
  std::map<std::string, GgufValue> metadata;
  std::vector<GgufTensor> tensors;  // in order of offset
  // Divisors of the rope frequencies, by the name of their tensor: part of the config, though stored as weights.
  std::map<std::string, std::vector<float>> rope_factors;

  const GgufValue* find(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  std::optional<int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;  // integers are numbers too
  std::optional<bool> flag(const std::string& key) const;
};

// Reads the header, and of the data the rope factors only.
Result<Gguf> read_gguf(const OpenFile& file);

}  // namespace switchyard

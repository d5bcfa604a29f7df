// Writes small checkpoints: a safetensors file from names, dtypes and shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/model/dtype.h"
#include "engine/model/tensor_info.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {

// A file of this header and these bytes of data; the length bytes are right.
inline std::string safetensors_of(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  return file + std::string(header) + std::string(data);
}

// A tensor of F32.
struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};
inline std::string safetensors_of(const std::vector<NamedTensor>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const NamedTensor& tensor : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return safetensors_of(header.dump(), data);
}

// The bytes of tensor n (in the given order) are all n mod 256. Sets begin and end of `tensors`.
inline std::string safetensors_with(std::vector<TensorInfo>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (size_t n = 0; n < tensors.size(); ++n) {
    uint64_t bytes = static_cast<uint64_t>(bits(tensors[n].dtype)) / 8;
    for (const int64_t dim : tensors[n].shape) bytes *= static_cast<uint64_t>(dim);
    header[tensors[n].name] = {{"dtype", name(tensors[n].dtype)},
                               {"shape", tensors[n].shape},
                               {"data_offsets", {data.size(), data.size() + bytes}}};
    data += std::string(bytes, static_cast<char>(n));
  }
  const std::string text = header.dump();
  uint64_t at = 8 + text.size();
  for (TensorInfo& tensor : tensors) {
    const auto offsets = header[tensor.name]["data_offsets"];
    tensor.begin = at + offsets[0].get<uint64_t>();
    tensor.end = at + offsets[1].get<uint64_t>();
  }
  return safetensors_of(text, data);
}

}  // namespace switchyard

// A golden checkpoint whose tensors a test changes on disk, read and written without the engine.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/backend/harness.h"

namespace switchyard::testing {

struct Stored {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// A checkpoint of one safetensors file in F32 or BF16, read and written without the engine.
class DiskModel {
 public:
  explicit DiskModel(const std::string& golden) : source_(goldens_folder() / golden) {
    const std::string file = slurp(source_ / "model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const auto header = nlohmann::json::parse(file.substr(8, length));
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      Stored& tensor = tensors[name] = {entry["dtype"], entry["shape"], {}};
      const char* bytes = file.data() + 8 + length + entry["data_offsets"][0].get<size_t>();
      const size_t size = entry["data_offsets"][1].get<size_t>() - entry["data_offsets"][0].get<size_t>();
      for (size_t at = 0; at < size; at += width(tensor)) {
        uint32_t word = 0;
        std::memcpy(reinterpret_cast<char*>(&word) + (4 - width(tensor)), bytes + at, width(tensor));
        float value = 0;
        std::memcpy(&value, &word, 4);
        tensor.values.push_back(value);
      }
    }
  }

  // Values that the type cannot hold are rounded to the nearest, ties to even.
  void save(const std::filesystem::path& folder) const {
    std::filesystem::copy(source_ / "config.json", folder / "config.json");
    nlohmann::json header = nlohmann::json::object();
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      const size_t begin = data.size();
      for (const float value : tensor.values) {
        uint32_t word = 0;
        std::memcpy(&word, &value, 4);
        if (width(tensor) == 2) word += 0x7FFF + (word >> 16 & 1);
        data.append(reinterpret_cast<const char*>(&word) + (4 - width(tensor)), width(tensor));
      }
      header[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream out(folder / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << text << data;
  }

  std::map<std::string, Stored> tensors;

 private:
  static size_t width(const Stored& tensor) { return tensor.dtype == "BF16" ? 2 : 4; }
  static std::string slurp(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path source_;
};

}  // namespace switchyard::testing

// A .pt as torch.save writes it, of dictionaries and int64 or float64 tensors: loads with weights_only. Pure; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace switchyard {

struct TorchTensor {
  std::vector<int64_t> shape;
  std::variant<std::vector<int64_t>, std::vector<double>> values;  // row-major
};

struct TorchDict {
  using Key = std::variant<std::string, int64_t>;
  using Value = std::variant<TorchTensor, std::shared_ptr<TorchDict>>;
  std::vector<std::pair<Key, Value>> items;
};

// The bytes of the file. name: of the archive's folder, "archive".
std::string torch_file(const TorchDict& root, std::string_view name);

}  // namespace switchyard

// Where one tensor of a checkpoint lies.
#include "engine/model/tensor_info.h"

#include <algorithm>

#include <fmt/format.h>

namespace switchyard {

const TensorInfo* find_tensor(std::span<const TensorInfo> sorted, std::string_view name) {
  const auto at =
      std::lower_bound(sorted.begin(), sorted.end(), name,
                       [](const TensorInfo& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != sorted.end() && at->name == name ? &*at : nullptr;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace switchyard

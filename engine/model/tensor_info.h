// Where one tensor of a checkpoint lies. Plain data; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/dtype.h"

namespace switchyard {

struct QuantLayout;  // quantised.h

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the shard file
  int shard = 0;                // index into Checkpoint::shards
  std::shared_ptr<const QuantLayout> layout = {};  // GGUF: how elements come from the bytes; null: plain, of `dtype`
};

// nullptr: absent. sorted: by name.
const TensorInfo* find_tensor(std::span<const TensorInfo> sorted, std::string_view name);

// "[64, 2048]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace switchyard

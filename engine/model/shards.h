// Which files hold which tensors: model.safetensors, or the shards of model.safetensors.index.json.
// Called while a checkpoint opens; any thread. Rules: formats.md, section 3.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/result.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

struct TensorTable {
  std::vector<std::string> shards;  // sorted file names
  std::vector<TensorInfo> tensors;  // sorted by name; begin and end from the start of their shard
};

// Reads headers only (and both copies of a tensor that stands in two shards, which must be equal).
Result<TensorTable> read_tensor_table(const Folder& folder);

// True where the folder has a safetensors file or index of the usual name.
bool has_safetensors(const Folder& folder);

// tensor -> shard, from the text of an index.
Result<std::map<std::string, std::string>> parse_index(std::string_view json, std::string_view file);

}  // namespace switchyard

// GGUF models on disk: one file, or the parts NAME-00001-of-0000N.gguf of a split one.
// Called while a checkpoint opens; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/gguf.h"
#include "engine/model/shards.h"

namespace switchyard {

bool is_gguf_name(std::string_view name);  // ends with ".gguf"

// The GGUF file that stands for this folder (its first part), empty: there is none. Several models are refused.
Result<std::string> only_gguf(const Folder& folder);

// Headers of all parts. name: the file, or any part of it.
struct GgufModel {
  Json config;  // as config.json would say it
  TensorTable table;
};
Result<GgufModel> read_gguf_model(const Folder& folder, const std::string& name);
// The same of headers that were read: all parts, in order, and their file names.
Result<GgufModel> gguf_model_of(std::vector<Gguf> parts, const std::vector<std::string>& names);

}  // namespace switchyard

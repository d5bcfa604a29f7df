// A GGUF file seen as a checkpoint: the config.json that the family files read, and tensors under the names of the
// Hugging Face release. llama.cpp's converter renames, splits, merges and reorders; each step is undone here, so that
// families and backends know one description. Called while a checkpoint opens; any thread.
// Names and steps: convert_hf_to_gguf.py and gguf-py/gguf/constants.py of llama.cpp.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/gguf.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

std::string supported_gguf_architectures();  // "llama, olmoe, ..."

// gguf: metadata of the first part and the tensors of all. file: for messages. Refuses unknown architectures with the
// list, and missing or mistyped keys by name.
Result<Json> config_of(const Gguf& gguf, const std::string& file);

// The tensors of all parts, each under its Hugging Face name where it has one; experts one by one; not sorted.
// config: of config_of(). files: names of the parts, for messages.
Result<std::vector<TensorInfo>> gguf_tensors_of(const Gguf& gguf, const Json& config,
                                                std::span<const std::string> files);

}  // namespace switchyard

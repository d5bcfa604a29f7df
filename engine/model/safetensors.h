// The safetensors format: every rule of formats.md section 3 and specs/families.md section 4, by value.
// Called while a checkpoint is opened and by its tests; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/folder.h"
#include "engine/base/result.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit
inline constexpr size_t kMaxTensors = 1'000'000;
inline constexpr size_t kMaxTensorNameBytes = 1024;
inline constexpr size_t kMaxTensorRank = 8;

// header: the JSON after the 8 length bytes. file: for messages. Offsets of the result count from the start of
// the file; the tensors are in order of offset.
Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view header, uint64_t file_bytes,
                                                         std::string_view file);

// N, the length of the header, from the first bytes of a file: at least 8 of them, or all it has.
Result<uint64_t> safetensors_header_bytes(std::string_view start, uint64_t file_bytes, std::string_view file);

// Reads the header only.
Result<std::vector<TensorInfo>> read_safetensors(const OpenFile& file);

}  // namespace switchyard

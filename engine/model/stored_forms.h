// How a checkpoint stores a matrix that config and family know only by name and shape: plain, or quantised in one of
// the published layouts. Used by PlanBuilder, so that families know nothing of quantisation; any thread.
// Layouts: families.md, section 1.30; see quantised.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

enum class QuantMethod : uint8_t { kNone, kFp8, kMxfp4, kGptq, kAwq, kPackedInt4 };

// quantization_config of config.json. Which modules it leaves out is not read: a module that is not quantised has
// its plain tensor in the file.
struct Quantisation {
  QuantMethod method = QuantMethod::kNone;
  int64_t group = 0;  // columns that share a scale; 0: all
  int64_t block_rows = 0, block_cols = 0;  // FP8; 0: one scale for the tensor or a row
  bool zero_less_one = false;              // GPTQ v1
};

// Refused, by value and with the list of what is supported: every method, format or width that is not decoded.
Result<Quantisation> read_quantisation(const JsonView& config);

std::string supported_quantisations();

// The tensor stored for `name` of this logical shape; nullopt: there is none, in any form.
// A form whose parts are missing or have other types or shapes is an error that names them.
Result<std::optional<TensorRef>> find_stored(const Quantisation& quantisation, std::span<const TensorInfo> tensors,
                                             std::span<const std::string> shards, const std::string& name,
                                             const std::vector<int64_t>& shape);

// True where find_stored() finds something.
bool is_stored(const Quantisation& quantisation, std::span<const TensorInfo> tensors, std::string_view name);

}  // namespace switchyard

// Tensors whose elements are not stored one by one: quantised matrices, and the rearranged ones of GGUF files.
// Layouts are made while a checkpoint opens (stored_forms.cpp, gguf_tensors.cpp) and decoded by WeightStore::read().
// Plain data and pure functions; any thread. Formats: families.md, section 1.30; the packages `gguf` and
// `compressed-tensors`; the kernels of AutoGPTQ and AutoAWQ.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/dtype.h"
#include "engine/model/ggml_blocks.h"
#include "engine/model/plan.h"

namespace switchyard {

// Where bytes of a shard lie. Empty: absent.
struct StoredBytes {
  DType dtype = DType::kU8;
  int shard = 0;
  uint64_t begin = 0, end = 0;
  explicit operator bool() const { return end > begin; }
};

enum class QuantKind : uint8_t {
  kFp8,          // F8_E4M3 [rows, cols]; a scale a block of block_rows x group
  kMxfp4,        // [rows, cols/32, 16] bytes, low nibble first; scales: an exponent a block of 32
  kGptq,         // I32 [cols/8, rows]: eight columns a word; scales F16 [groups, rows]; zeros I32 [groups, rows/8]
  kAwq,          // I32 [cols, rows/8]: eight rows a word in AWQ's order; scales, zeros as GPTQ's
  kPackedInt4,   // compressed-tensors: I32 [rows, cols/8]; scales [rows, groups]; zeros I32 [rows/8, groups]
  kGgml,         // blocks of a GGUF type along the columns
  kHeadRows,     // llama.cpp: each head's rows of q and k are stored as (first half, second half) interleaved
  kInterleaved,  // unit u of the tensor is unit u/2 of source u%2
  kLatentPair,   // kv_b from k_b [heads, cols, nope] and v_b [heads, value, cols]
};

// How the elements of a tensor come from stored bytes. The main bytes are those of the tensor that TensorRef names.
struct QuantLayout {
  QuantKind kind = QuantKind::kFp8;
  std::string label;  // "FP8 e4m3, 128 x 128 blocks", for people
  int64_t rows = 0;   // logical; leading dimensions of a packed tensor are rows too. 0 where the kind needs none
  int64_t cols = 0;
  int64_t group = 0;       // columns that share a scale
  int64_t block_rows = 1;  // rows that share a scale
  int zero_offset = 0;     // added to a stored zero point (GPTQ v1 stores them less one)
  bool zero_wraps = false;
  StoredBytes scales, zeros, order;  // order: I32 [cols], the group of each column
  GgmlType ggml = GgmlType::kF32;    // of kGgml, and of the main bytes of the kinds after it
  GgmlType second_ggml = GgmlType::kF32;
  StoredBytes second;          // kInterleaved, kLatentPair: the other source
  int64_t unit = 0;            // kInterleaved: elements
  int64_t heads = 0;           // kHeadRows, kLatentPair
  int64_t nope = 0, value = 0;  // kLatentPair: rows of a head
};

// The bytes of a shard; shorter than asked for: never (an error instead).
using ReadBytes = std::function<Result<std::span<const std::byte>>(const StoredBytes&)>;

// Logical elements [first, first + count) of a tensor with these main bytes, as fp32. Of tensors in rows, whole rows.
// The values are the products of stored numbers rounded once to fp32.
Result<void> decode_elements(const QuantLayout& layout, const StoredBytes& main, const ReadBytes& bytes, int64_t first,
                             int64_t count, float* out);

// Scales of any stored type as floats; empty where absent.
Result<std::vector<float>> stored_scales(const StoredBytes& stored, const ReadBytes& bytes);

// The narrowest of BF16, F16 and F32 that holds every element of the ref exactly: MXFP4 and rearranged bf16 are
// bf16; int4, FP8 and GGUF blocks are products of a scale and need fp32.
DType exact_dtype(const TensorRef& ref);

// What a backend holds that keeps plain dense tensors in the file and decodes the others at load.
uint64_t decoded_bytes(const TensorRef& ref);  // 0 where ref.in_place()

// "BF16", "FP8 e4m3, 128 x 128 blocks", "GPTQ int4, groups of 128", ...
std::string storage_text(const TensorRef& ref);

// Parameters of a plan by how they are stored, the largest share first.
struct StorageShare {
  std::string storage;
  int64_t parameters = 0;
};
std::vector<StorageShare> storage_of(const ModelPlan& plan);

}  // namespace switchyard

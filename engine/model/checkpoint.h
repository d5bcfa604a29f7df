// Opening a checkpoint: config and tensor headers only, no weights read (a 500 GB model is described
// in under two seconds). HF folder, GGUF file, HF cache entry ("org/name"), or the word "demo".
// Rules: formats.md sections 2 and 3, families.md section 4. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/plan.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

struct SamplingDefaults {  // generation_config.json; absent file or keys: greedy
  bool do_sample = false;
  float temperature = 1.0f;
  float top_p = 1.0f;
  int top_k = 0;  // 0: off
};

struct Checkpoint {
  std::filesystem::path folder;
  std::string name;                 // "demo", "org/name" or the folder's name
  std::string revision;             // HF cache entries only
  std::string config_json;          // the text of config.json; of a GGUF file what it would say
  std::vector<std::string> shards;  // file names in `folder`
  std::vector<TensorInfo> tensors;  // sorted by name
  ModelPlan plan;
  SamplingDefaults sampling;

  const TensorInfo* find(std::string_view tensor) const;  // nullptr: absent
  uint64_t weight_bytes() const;
};

// model: a folder, a .gguf file (of a split one any part), "org/name" of the HF cache, or "demo". Errors name file, tensor, found and needed.
Result<Checkpoint> open_checkpoint(std::string_view model);

// The folder that holds assets/ (models/demo, prompts, help, themes): SWITCHYARD_ASSETS, else beside
// the program (../share/switchyard, installed or in a build tree).
Result<std::filesystem::path> find_assets();

struct StoredBytes;  // engine/model/quantised.h
struct QuantLayout;

// A read-only view of stored elements; `data` need not be aligned to the element size.
struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
};

// Maps the shards of a checkpoint read-only and keeps them mapped. Thread-safe once opened.
// A shard that is truncated while mapped is reported as an error that names it, never SIGBUS.
class WeightStore {
 public:
  static Result<std::shared_ptr<const WeightStore>> open(const Checkpoint& checkpoint, Task* task = nullptr);
  virtual ~WeightStore() = default;

  // Only where ref.in_place().
  virtual Result<TensorView> view(const TensorRef& ref) const = 0;
  // Any ref, decoded to dense row-major fp32 [rows, cols] at `out`.
  virtual Result<void> read(const TensorRef& ref, float* out) const;
  // The stored bytes of a quantised tensor, whole, and of what belongs to it; a copy of its scales as floats. For
  // kernels that compute in blocks; kInternal from stores that hold none.
  virtual Result<std::span<const std::byte>> stored(const TensorRef& ref) const;
  virtual Result<std::span<const std::byte>> stored(const StoredBytes& bytes) const;
  Result<std::vector<float>> scales(const QuantLayout& layout) const;
  // An error if a shard changed on disk since it was mapped (size, inode or mtime).
  virtual Result<void> check_unchanged() const = 0;
  virtual uint64_t bytes() const = 0;
};

// SHA-256 of a file, lower-case hex; for provenance.
Result<std::string> sha256_of_file(const std::filesystem::path& file, Task* task = nullptr);

}  // namespace switchyard

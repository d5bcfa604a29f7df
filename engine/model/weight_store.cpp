// The mapped shards of a checkpoint.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/base/checked.h"
#include "engine/base/folder.h"
#include "engine/base/mapped_file.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/gguf_files.h"
#include "engine/model/quantised.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

class MappedWeights final : public WeightStore {
 public:
  MappedWeights(std::vector<TensorInfo> tensors, std::vector<std::shared_ptr<const MappedFile>> shards)
      : tensors_(std::move(tensors)), shards_(std::move(shards)) {}

  Result<TensorView> view(const TensorRef& ref) const override {
    const TensorInfo* tensor = find_tensor(tensors_, ref.name);
    if (!tensor) return fail(ErrorCode::kInternal, "is not in the checkpoint.", "tensor " + quote(ref.name));
    const MappedFile& shard = *shards_[tensor->shard];
    const uint64_t bytes_each = static_cast<uint64_t>(bits(tensor->dtype)) / 8;
    const auto elements = ref.rows < 0 || ref.cols < 0 ? std::nullopt : checked_mul(ref.rows, ref.cols);
    const auto end = elements && ref.element_offset >= 0 ? checked_add(ref.element_offset, *elements) : std::nullopt;
    const uint64_t stored = bytes_each == 0 ? 0 : (tensor->end - tensor->begin) / bytes_each;
    if (ref.dtype != tensor->dtype || !end || static_cast<uint64_t>(*end) > stored)
      return fail(
          ErrorCode::kInternal,
          fmt::format("tensor {} has {} elements of {}, asked for {} x {} of {} from element {}.", quote(ref.name),
                      stored, name(tensor->dtype), ref.rows, ref.cols, name(ref.dtype), ref.element_offset),
          shard.file().name());
    return TensorView{
        .data = shard.bytes().data() + tensor->begin + static_cast<uint64_t>(ref.element_offset) * bytes_each,
        .dtype = tensor->dtype,
        .rows = ref.rows,
        .cols = ref.cols};
  }

  Result<void> read(const TensorRef& ref, float* out) const override {
    auto done = ref.quantised ? read_quantised(ref, out) : WeightStore::read(ref, out);
    if (done) release(ref);
    if (!done && done.error().where.empty()) done.error().where = "tensor " + quote(ref.name);
    return done;
  }

  Result<std::span<const std::byte>> stored(const TensorRef& ref) const override {
    const TensorInfo* tensor = find_tensor(tensors_, ref.name);
    if (!tensor) return fail(ErrorCode::kInternal, "is not in the checkpoint.", "tensor " + quote(ref.name));
    return bytes_of({tensor->dtype, tensor->shard, tensor->begin, tensor->end});
  }
  Result<std::span<const std::byte>> stored(const StoredBytes& bytes) const override { return bytes_of(bytes); }

  Result<void> check_unchanged() const override {
    for (const auto& shard : shards_) SY_CHECK(shard->check_unchanged());
    return {};
  }

  uint64_t bytes() const override {
    uint64_t total = 0;
    for (const TensorInfo& tensor : tensors_) total += tensor.end - tensor.begin;
    return total;
  }

 private:
  // Bytes of a shard that the plan points to; the header they were checked against is still the file's.
  Result<std::span<const std::byte>> bytes_of(const StoredBytes& stored) const {
    const auto shard = static_cast<size_t>(stored.shard);
    if (shard >= shards_.size() || stored.end < stored.begin || stored.end > shards_[shard]->bytes().size())
      return fail(ErrorCode::kInternal, fmt::format("bytes {} to {} lie outside the shard.", stored.begin, stored.end));
    return shards_[shard]->bytes().subspan(stored.begin, stored.end - stored.begin);
  }

  // What was copied need not stay resident beside the copy.
  void release(const TensorRef& ref) const {
    const TensorInfo* tensor = find_tensor(tensors_, ref.name);
    if (tensor) shards_[tensor->shard]->release(tensor->begin, tensor->end);
  }

  Result<void> read_quantised(const TensorRef& ref, float* out) const {
    const TensorInfo* tensor = find_tensor(tensors_, ref.name);
    if (!tensor) return fail(ErrorCode::kInternal, "is not in the checkpoint.", "tensor " + quote(ref.name));
    const StoredBytes main{tensor->dtype, tensor->shard, tensor->begin, tensor->end};
    const ReadBytes bytes = [this](const StoredBytes& stored) { return bytes_of(stored); };
    const QuantLayout& layout = *ref.quantised;
    const int64_t stride = ref.row_stride > 0 ? ref.row_stride : ref.cols;
    if (ref.elements() == 0) return {};
    if (ref.col_stride == 1 && (stride == ref.cols || ref.rows == 1))
      return decode_elements(layout, main, bytes, ref.element_offset, ref.elements(), out);
    if (ref.col_stride == 1) {
      for (int64_t r = 0; r < ref.rows; ++r)
        SY_CHECK(decode_elements(layout, main, bytes, ref.element_offset + r * stride, ref.cols, out + r * ref.cols));
      return {};
    }
    // Elements apart from each other: whole rows of the stored tensor, then those that are wanted.
    const int64_t row = layout.cols > 0 ? layout.cols : 1;
    const int64_t begin = ref.element_offset / row * row;
    const int64_t last = ref.element_offset + (ref.rows - 1) * stride + (ref.cols - 1) * ref.col_stride;
    std::vector<float> all(static_cast<size_t>((last / row + 1) * row - begin));
    SY_CHECK(decode_elements(layout, main, bytes, begin, static_cast<int64_t>(all.size()), all.data()));
    for (int64_t r = 0; r < ref.rows; ++r)
      for (int64_t c = 0; c < ref.cols; ++c)
        *out++ = all[static_cast<size_t>(ref.element_offset + r * stride + c * ref.col_stride - begin)];
    return {};
  }

  std::vector<TensorInfo> tensors_;  // sorted by name
  std::vector<std::shared_ptr<const MappedFile>> shards_;
};

// Stored elements may be unaligned, so each is copied before it is converted.
template <class Stored, class Convert>
void convert(const std::byte* data, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride, float* out,
             Convert&& to_float) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      Stored stored;
      std::memcpy(&stored, data + (r * row_stride + c * col_stride) * int64_t{sizeof(Stored)}, sizeof(Stored));
      *out++ = to_float(stored);
    }
}

// The header of a shard must be the one that the plan was made from: the file may have been replaced since.
// stored: sorted by name; what the file holds now, of other shards too.
Result<void> check_same_header(const std::vector<TensorInfo>& stored, size_t shard, const Checkpoint& checkpoint) {
  for (const TensorInfo& tensor : checkpoint.tensors) {
    if (static_cast<size_t>(tensor.shard) != shard) continue;
    const TensorInfo* now = find_tensor(stored, tensor.name);
    if (!now || now->dtype != tensor.dtype || now->shape != tensor.shape || now->begin != tensor.begin)
      return fail(ErrorCode::kMalformed,
                  fmt::format("has another header than when the model was opened (tensor {}).", quote(tensor.name)),
                  checkpoint.shards[shard], "Open the model again.");
  }
  return {};
}

Result<void> check_same_gguf(std::vector<Gguf> headers, const Checkpoint& checkpoint) {
  SY_TRY(const GgufModel now, gguf_model_of(std::move(headers), checkpoint.shards));
  if (now.config.dump(2) != checkpoint.config_json)
    return fail(ErrorCode::kMalformed, "has other metadata than when the model was opened.", checkpoint.shards.front(),
                "Open the model again.");
  for (size_t i = 0; i < checkpoint.shards.size(); ++i) SY_CHECK(check_same_header(now.table.tensors, i, checkpoint));
  return {};
}

}  // namespace

// The elements between the first and the last that a strided ref touches, as one row.
TensorRef span_of(const TensorRef& ref, int64_t row_stride) {
  TensorRef span = ref;
  span.rows = 1;
  span.cols = ref.elements() == 0 ? 0 : (ref.rows - 1) * row_stride + (ref.cols - 1) * ref.col_stride + 1;
  span.row_stride = 0;
  span.col_stride = 1;
  return span;
}

Result<std::span<const std::byte>> WeightStore::stored(const TensorRef& ref) const {
  return fail(ErrorCode::kInternal, "the stored bytes are not to be had.", "tensor " + quote(ref.name));
}
Result<std::span<const std::byte>> WeightStore::stored(const StoredBytes&) const {
  return fail(ErrorCode::kInternal, "the stored bytes are not to be had.");
}
Result<std::vector<float>> WeightStore::scales(const QuantLayout& layout) const {
  return stored_scales(layout.scales, [this](const StoredBytes& bytes) { return stored(bytes); });
}

Result<void> WeightStore::read(const TensorRef& ref, float* out) const {
  if (ref.block_rows > 0) {
    TensorRef block = ref;
    block.block_rows = 0;
    for (int64_t from = 0; from < ref.rows; from += ref.block_rows) {
      block.rows = std::min(ref.block_rows, ref.rows - from);
      SY_CHECK(read(block, out + from * ref.cols));
      block.element_offset += ref.block_stride;
    }
    return {};
  }
  const int64_t row_stride = ref.row_stride > 0 ? ref.row_stride : ref.cols;
  SY_TRY(const TensorView view, this->view(span_of(ref, row_stride)));
  switch (view.dtype) {
    case DType::kF32:
      convert<float>(view.data, ref.rows, ref.cols, row_stride, ref.col_stride, out, [](float v) { return v; });
      return {};
    case DType::kBF16:
      convert<uint16_t>(view.data, ref.rows, ref.cols, row_stride, ref.col_stride, out, float_of_bf16);
      return {};
    case DType::kF16:
      convert<uint16_t>(view.data, ref.rows, ref.cols, row_stride, ref.col_stride, out, float_of_f16);
      return {};
    default:
      return fail(ErrorCode::kInternal, fmt::format("stored as {}, which nothing reads.", name(view.dtype)),
                  "tensor " + quote(ref.name));
  }
}

Result<std::shared_ptr<const WeightStore>> WeightStore::open(const Checkpoint& checkpoint, Task* task) {
  SY_TRY(const Folder folder, Folder::open(checkpoint.folder));
  std::vector<std::shared_ptr<const MappedFile>> shards;
  std::vector<Gguf> gguf;
  for (size_t i = 0; i < checkpoint.shards.size(); ++i) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "opening was stopped.", checkpoint.name);
    if (task)
      task->report(static_cast<double>(i) / static_cast<double>(checkpoint.shards.size()),
                   "Mapping " + checkpoint.shards[i]);
    SY_TRY(OpenFile file, folder.open_file(checkpoint.shards[i]));
    if (is_gguf_name(file.name())) {
      SY_TRY(Gguf header, read_gguf(file));
      gguf.push_back(std::move(header));
    } else {
      SY_TRY(auto stored, read_safetensors(file));
      std::sort(stored.begin(), stored.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
      SY_CHECK(check_same_header(stored, i, checkpoint));
    }
    SY_TRY(auto shard, MappedFile::map(std::move(file)));
    shards.push_back(std::move(shard));
  }
  if (!gguf.empty()) SY_CHECK(check_same_gguf(std::move(gguf), checkpoint));
  return std::make_shared<const MappedWeights>(checkpoint.tensors, std::move(shards));
}

}  // namespace switchyard

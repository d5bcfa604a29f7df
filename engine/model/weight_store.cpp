// The mapped shards of a checkpoint.
#include <fmt/format.h>

#include "engine/base/checked.h"
#include "engine/base/folder.h"
#include "engine/base/mapped_file.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

class MappedWeights final : public WeightStore {
 public:
  MappedWeights(std::vector<TensorInfo> tensors, std::vector<std::shared_ptr<const MappedFile>> shards) : shards_(std::move(shards)) {
    table_.tensors = std::move(tensors);
  }

  Result<TensorView> view(const TensorRef& ref) const override {
    const TensorInfo* tensor = table_.find(ref.name);
    if (!tensor) return fail(ErrorCode::kInternal, "is not in the checkpoint.", "tensor " + quote(ref.name));
    const MappedFile& shard = *shards_[tensor->shard];
    const uint64_t bytes_each = static_cast<uint64_t>(bits(tensor->dtype)) / 8;
    const auto elements = ref.rows < 0 || ref.cols < 0 ? std::nullopt : checked_mul(ref.rows, ref.cols);
    const auto end = elements && ref.element_offset >= 0 ? checked_add(ref.element_offset, *elements) : std::nullopt;
    const uint64_t stored = bytes_each == 0 ? 0 : (tensor->end - tensor->begin) / bytes_each;
    if (ref.dtype != tensor->dtype || !end || static_cast<uint64_t>(*end) > stored)
      return fail(ErrorCode::kInternal,
                  fmt::format("tensor {} has {} elements of {}, asked for {} x {} of {} from element {}.", quote(ref.name), stored,
                              name(tensor->dtype), ref.rows, ref.cols, name(ref.dtype), ref.element_offset),
                  shard.file().name());
    return TensorView{.data = shard.bytes().data() + tensor->begin + static_cast<uint64_t>(ref.element_offset) * bytes_each,
                      .dtype = tensor->dtype, .rows = ref.rows, .cols = ref.cols};
  }

  Result<void> check_unchanged() const override {
    for (const auto& shard : shards_) SY_CHECK(shard->check_unchanged());
    return {};
  }

  uint64_t bytes() const override { return table_.weight_bytes(); }

 private:
  Checkpoint table_;  // its tensors only, for find()
  std::vector<std::shared_ptr<const MappedFile>> shards_;
};

}  // namespace

Result<std::shared_ptr<const WeightStore>> WeightStore::open(const Checkpoint& checkpoint, Task* task) {
  SY_TRY(const Folder folder, Folder::open(checkpoint.folder));
  std::vector<uint64_t> ends(checkpoint.shards.size(), 0);
  for (const TensorInfo& tensor : checkpoint.tensors) ends[tensor.shard] = std::max(ends[tensor.shard], tensor.end);
  std::vector<std::shared_ptr<const MappedFile>> shards;
  for (size_t i = 0; i < checkpoint.shards.size(); ++i) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "opening was stopped.", checkpoint.name);
    if (task) task->report(static_cast<double>(i) / static_cast<double>(checkpoint.shards.size()), "Mapping " + checkpoint.shards[i]);
    SY_TRY(OpenFile file, folder.open_file(checkpoint.shards[i]));
    if (file.size() < ends[i])
      return fail(ErrorCode::kMalformed, fmt::format("has {} bytes, its header needs {}.", file.size(), ends[i]), checkpoint.shards[i],
                  "It changed since the model was opened: open it again.");
    SY_TRY(auto shard, MappedFile::map(std::move(file)));
    shards.push_back(std::move(shard));
  }
  return std::make_shared<const MappedWeights>(checkpoint.tensors, std::move(shards));
}

}  // namespace switchyard

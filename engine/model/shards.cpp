// Which files hold which tensors.
#include "engine/model/shards.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 4096;

using ShardOf = std::map<std::string, std::string>;

// Why there is nothing to read, from what the folder does hold.
tl::unexpected<Error> no_weights(const Folder& folder) {
  for (const std::string& name : folder.names()) {
    const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
    if (ends(".bin") || ends(".pt") || ends(".pth") || ends(".ckpt"))
      return fail(ErrorCode::kMalformed, "is a pickle, a program that would have to be run; it is not opened.",
                  printable(name), "Convert the checkpoint to safetensors (transformers: save_pretrained).");
  }
  return fail(ErrorCode::kNotFound, fmt::format("has neither {} nor {}.", kSingle, kIndex),
              printable(folder.path().string(), 400), "Is the download complete?");
}

struct Shard {
  std::string name;
  std::vector<TensorInfo> tensors;
};

Result<bool> same_bytes(const Folder& folder, const Shard& a, const TensorInfo& in_a, const Shard& b,
                        const TensorInfo& in_b) {
  constexpr uint64_t kPiece = 1 << 20;
  SY_TRY(const OpenFile file_a, folder.open_file(a.name));
  SY_TRY(const OpenFile file_b, folder.open_file(b.name));
  std::string left, right;
  for (uint64_t at = 0; at < in_a.end - in_a.begin; at += kPiece) {
    const uint64_t bytes = std::min(kPiece, in_a.end - in_a.begin - at);
    left.resize(bytes);
    right.resize(bytes);
    SY_CHECK(file_a.read(in_a.begin + at, left));
    SY_CHECK(file_b.read(in_b.begin + at, right));
    if (left != right) return false;
  }
  return true;
}

// Of a tensor in two shards the one that the index names.
Result<void> add_tensors(const Shard& shard, int number, const ShardOf& shard_of, std::vector<TensorInfo>& all) {
  if (all.size() + shard.tensors.size() > kMaxTensors)
    return fail(ErrorCode::kMalformed, fmt::format("brings the checkpoint above the limit of {} tensors.", kMaxTensors),
                shard.name);
  for (TensorInfo tensor : shard.tensors) {
    const auto mapped = shard_of.find(tensor.name);
    if (mapped != shard_of.end() && mapped->second != shard.name) continue;
    tensor.shard = number;
    all.push_back(std::move(tensor));
  }
  return {};
}

// A tensor may stand in two shards if it is the same tensor.
Result<void> check_copies(const Folder& folder, const std::vector<Shard>& shards) {
  std::map<std::string_view, std::pair<const Shard*, const TensorInfo*>> seen;
  for (const Shard& shard : shards)
    for (const TensorInfo& tensor : shard.tensors) {
      const auto [first, is_new] = seen.try_emplace(tensor.name, &shard, &tensor);
      if (is_new) continue;
      const auto& [other, copy] = first->second;
      bool equal = copy->dtype == tensor.dtype && copy->shape == tensor.shape;
      if (equal) {
        SY_TRY(equal, same_bytes(folder, *other, *copy, shard, tensor));
      }
      if (!equal)
        return fail(ErrorCode::kMalformed,
                    fmt::format("tensor {} is also in {}, with other content.", quote(tensor.name), other->name),
                    shard.name, "The shards belong to different checkpoints: download the model again.");
    }
  return {};
}

Result<void> check_mapped(const ShardOf& shard_of, const std::vector<TensorInfo>& tensors) {
  for (const auto& [tensor, shard] : shard_of)
    if (!find_tensor(tensors, tensor))
      return fail(ErrorCode::kMalformed,
                  fmt::format("does not hold tensor {}, which {} puts there.", quote(tensor), kIndex), shard,
                  "The shard belongs to another checkpoint, or its download is unfinished.");
  return {};
}

Result<TensorTable> read_shards(const Folder& folder, const std::vector<std::string>& names, const ShardOf& shard_of) {
  TensorTable table{.shards = names};
  std::vector<Shard> shards;
  for (size_t i = 0; i < names.size(); ++i) {
    SY_TRY(const OpenFile file, folder.open_file(names[i]));
    SY_TRY(auto tensors, read_safetensors(file));
    shards.push_back({names[i], std::move(tensors)});
    SY_CHECK(add_tensors(shards.back(), static_cast<int>(i), shard_of, table.tensors));
  }
  SY_CHECK(check_copies(folder, shards));
  std::stable_sort(table.tensors.begin(), table.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  const auto same_name = [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; };
  table.tensors.erase(std::unique(table.tensors.begin(), table.tensors.end(), same_name), table.tensors.end());
  SY_CHECK(check_mapped(shard_of, table.tensors));
  return table;
}

}  // namespace

Result<ShardOf> parse_index(std::string_view text, std::string_view file) {
  SY_TRY(const Json json, parse_json(text, file, {.bytes = kMaxIndexBytes}));
  const JsonView index(json, std::string(file));
  SY_TRY(const JsonView map, index.at("weight_map"));
  SY_TRY(const auto entries, map.as_object());
  ShardOf shard_of;
  for (const auto& [tensor, value] : entries) {
    SY_TRY(std::string shard, value.as_text());
    if (!is_file_name(shard) || !shard.ends_with(".safetensors"))
      return value.fail(
          fmt::format("is {}, needs the plain name of a .safetensors file in the same folder.", quote(shard)),
          "Refused: a checkpoint may not lead to other files.");
    shard_of.emplace_hint(shard_of.end(), tensor, std::move(shard));
  }
  if (shard_of.empty()) return map.fail("names no tensor");
  return shard_of;
}

bool has_safetensors(const Folder& folder) {
  return folder.has(kSingle) || folder.has(kIndex);
}

Result<TensorTable> read_tensor_table(const Folder& folder) {
  if (folder.has(kSingle)) return read_shards(folder, {std::string(kSingle)}, {});
  if (!folder.has(kIndex)) return no_weights(folder);
  SY_TRY(const std::string text, folder.read_text(kIndex, kMaxIndexBytes));
  SY_TRY(const ShardOf shard_of, parse_index(text, kIndex));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  if (names.size() > kMaxShards)
    return fail(ErrorCode::kMalformed, fmt::format("names {} shards, the limit is {}.", names.size(), kMaxShards),
                std::string(kIndex));
  return read_shards(folder, {names.begin(), names.end()}, shard_of);
}

}  // namespace switchyard

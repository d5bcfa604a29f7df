// GGUF models on disk.
#include "engine/model/gguf_files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/gguf_model.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

constexpr std::string_view kSuffix = ".gguf";
constexpr int kMaxParts = 4096;

struct Part {
  std::string stem;
  int number = 1, count = 1;
};

std::optional<int> five_digits(std::string_view text) {
  int value = 0;
  if (text.size() != 5) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + 5, value);
  return error == std::errc() && end == text.data() + 5 && value > 0 ? std::optional(value) : std::nullopt;
}

// NAME-00002-of-00003.gguf; nullopt: a file of its own.
std::optional<Part> part_of(std::string_view name) {
  constexpr size_t kTail = std::string_view("-00001-of-00003.gguf").size();
  if (name.size() <= kTail || !name.ends_with(kSuffix)) return std::nullopt;
  const std::string_view tail = name.substr(name.size() - kTail);
  const auto number = five_digits(tail.substr(1, 5)), count = five_digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !number || !count) return std::nullopt;
  return Part{std::string(name.substr(0, name.size() - kTail)), *number, *count};
}

std::string part_name(const Part& part, int number) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", part.stem, number, part.count);
}

}  // namespace

bool is_gguf_name(std::string_view name) {
  return name.ends_with(kSuffix);
}

Result<std::string> only_gguf(const Folder& folder) {
  std::set<std::string> models;
  for (const std::string& name : folder.names()) {
    if (!is_gguf_name(name) || name.starts_with("mmproj")) continue;
    const auto part = part_of(name);
    models.insert(part ? part_name(*part, 1) : name);
  }
  if (models.size() > 1)
    return fail(ErrorCode::kUsage,
                fmt::format("holds {} GGUF models, {} and {} among them.", models.size(), quote(*models.begin()),
                            quote(*std::next(models.begin()))),
                printable(folder.path().string(), 400), "Name the file to open.");
  return models.empty() ? std::string() : *models.begin();
}

Result<GgufModel> read_gguf_model(const Folder& folder, const std::string& name) {
  const auto part = part_of(name);
  if (part && (part->count > kMaxParts || part->number > part->count))
    return fail(ErrorCode::kMalformed, fmt::format("is part {} of {}, the limit is {}.", part->number, part->count, kMaxParts),
                printable(name));
  GgufModel model;
  for (int i = 1; i <= (part ? part->count : 1); ++i) {
    const std::string file_name = part ? part_name(*part, i) : name;
    SY_TRY(const OpenFile file, folder.open_file(file_name));
    SY_TRY(const Gguf gguf, read_gguf(file));
    const int64_t declared = gguf.integer("split.count").value_or(part ? part->count : 1);
    if (declared > 1 && (!part || declared != part->count))
      return fail(ErrorCode::kMalformed,
                  fmt::format("is one of {} parts by its metadata, which its name does not say.", declared), file_name,
                  "Keep the names that the parts were published under, NAME-00001-of-0000N.gguf.");
    if (i == 1) {
      SY_TRY(model.config, config_of(gguf, file_name));
    }
    SY_CHECK(add_gguf_tensors(gguf, model.config, i - 1, file_name, model.table.tensors));
    model.table.shards.push_back(file_name);
  }
  std::vector<TensorInfo>& tensors = model.table.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                        [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twice != tensors.end())
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} stands twice.", quote(twice->name)),
                model.table.shards[static_cast<size_t>(std::next(twice)->shard)]);
  return model;
}

}  // namespace switchyard

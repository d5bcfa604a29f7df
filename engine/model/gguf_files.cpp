// GGUF models on disk.
#include "engine/model/gguf_files.h"

#include <algorithm>
#include <charconv>
#include <map>
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

// The metadata of the first part, the tensors of all.
Result<Gguf> joined(std::vector<Gguf> parts, const std::vector<std::string>& names) {
  Gguf whole = std::move(parts.front());
  std::map<std::string, int, std::less<>> part_of_tensor;
  for (const GgufTensor& tensor : whole.tensors) part_of_tensor.emplace(tensor.name, 0);
  for (size_t i = 1; i < parts.size(); ++i) {
    for (GgufTensor& tensor : parts[i].tensors) {
      const auto [at, first] = part_of_tensor.emplace(tensor.name, static_cast<int>(i));
      if (!first)
        return fail(
            ErrorCode::kMalformed,
            fmt::format("tensor {} stands in {} too.", quote(tensor.name), names[static_cast<size_t>(at->second)]),
            names[i]);
      tensor.part = static_cast<int>(i);
      whole.tensors.push_back(std::move(tensor));
    }
    whole.rope_factors.merge(parts[i].rope_factors);
  }
  return whole;
}

// What a part says of the set that it belongs to, where it says so.
Result<void> check_part(const Gguf& gguf, size_t at, size_t count, const std::string& name) {
  constexpr std::string_view kHint =
      "Keep the parts of one set together, under the names that they were published under: NAME-00001-of-0000N.gguf.";
  const auto declared = static_cast<size_t>(gguf.integer("split.count").value_or(0));
  if (declared > 1 && declared != count)
    return fail(ErrorCode::kMalformed,
                fmt::format("is one of {} parts by its metadata, {} by its name.", declared, count), name,
                std::string(kHint));
  const auto number = static_cast<size_t>(gguf.integer("split.no").value_or(static_cast<int64_t>(at)));
  if (count > 1 && number != at)
    return fail(ErrorCode::kMalformed,
                fmt::format("is part {} of {} by its metadata, {} by its name.", number + 1, count, at + 1), name,
                std::string(kHint));
  return {};
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

Result<GgufModel> gguf_model_of(std::vector<Gguf> parts, const std::vector<std::string>& names) {
  for (size_t i = 0; i < parts.size(); ++i) SY_CHECK(check_part(parts[i], i, parts.size(), names[i]));
  GgufModel model;
  SY_TRY(const Gguf whole, joined(std::move(parts), names));
  if (const auto total = whole.integer("split.tensors.count");
      names.size() > 1 && total && *total != static_cast<int64_t>(whole.tensors.size()))
    return fail(ErrorCode::kMalformed,
                fmt::format("counts {} tensors in all parts, they hold {}.", *total, whole.tensors.size()),
                names.front(), "Are all parts of one set, and whole? Download them again.");
  SY_TRY(model.config, config_of(whole, names.front()));
  SY_TRY(model.table.tensors, gguf_tensors_of(whole, model.config, names));
  model.table.shards = names;
  std::vector<TensorInfo>& tensors = model.table.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                        [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twice != tensors.end())
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} stands twice.", quote(twice->name)),
                names[static_cast<size_t>(std::next(twice)->shard)]);
  return model;
}

Result<GgufModel> read_gguf_model(const Folder& folder, const std::string& name) {
  const auto part = part_of(name);
  if (part && (part->count > kMaxParts || part->number > part->count))
    return fail(ErrorCode::kMalformed,
                fmt::format("is part {} of {}, the limit is {}.", part->number, part->count, kMaxParts),
                printable(name));
  std::vector<Gguf> parts;
  std::vector<std::string> names;
  for (int i = 1; i <= (part ? part->count : 1); ++i) {
    names.push_back(part ? part_name(*part, i) : name);
    SY_TRY(const OpenFile file, folder.open_file(names.back()));
    SY_TRY(Gguf header, read_gguf(file));
    parts.push_back(std::move(header));
  }
  return gguf_model_of(std::move(parts), names);
}

}  // namespace switchyard

// llama.cpp importance matrices (formats.md F5): the counts of any expert tensor are counts by expert.
#include <algorithm>
#include <cstring>
#include <map>

#include "engine/base/text.h"
#include "engine/model/gguf.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {
namespace {

constexpr std::string_view kCounts = ".counts";

// "blk.3.ffn_gate_exps.weight.counts" -> 3
std::optional<int> expert_layer(std::string_view name) {
  if (!name.starts_with("blk.") || name.find("_exps.") == std::string_view::npos) return std::nullopt;
  const size_t dot = name.find('.', 4);
  return dot == std::string_view::npos ? std::nullopt : number_after(name.substr(0, dot), "blk.");
}

Result<std::vector<uint64_t>> counts_of(const OpenFile& file, const GgufTensor& tensor) {
  const std::string where = file.name() + ": " + quote(tensor.name);
  if (tensor.type != GgmlType::kF32 || (tensor.end - tensor.begin) % 4 != 0 || tensor.end - tensor.begin > 4 * 65'535)
    return fail(ErrorCode::kMalformed, "is no list of float32 counts.", where);
  std::vector<float> values((tensor.end - tensor.begin) / 4);
  SY_CHECK(file.read(tensor.begin, std::span(reinterpret_cast<char*>(values.data()), values.size() * 4)));
  std::vector<uint64_t> counts;
  for (const float value : values) {
    SY_TRY(const int64_t count, whole(value, 0, int64_t(1) << 52, where));
    counts.push_back(uint64_t(count));
  }
  return counts;
}

Result<void> read_gguf_counts(const OpenFile& file, DumpSink& sink) {
  SY_TRY(const Gguf gguf, read_gguf(file));
  if (gguf.text("general.type").value_or("") != "imatrix")
    return fail(ErrorCode::kMalformed, "is a GGUF file of type " + quote(gguf.text("general.type").value_or("model")) + ", needs \"imatrix\".", file.name());
  std::map<int, std::vector<uint64_t>> layers;
  uint64_t tokens = 0;  // of a dense weight, which every token passes
  for (const GgufTensor& tensor : gguf.tensors) {
    if (!std::string_view(tensor.name).ends_with(kCounts)) continue;
    SY_TRY(const std::vector<uint64_t> counts, counts_of(file, tensor));
    const auto layer = expert_layer(tensor.name);
    if (!layer) {
      if (counts.size() == 1 && tensor.name.starts_with("blk.") && tensor.name.find("_shexp") == std::string::npos) tokens = std::max(tokens, counts[0]);
      continue;
    }
    const auto [at, fresh] = layers.emplace(*layer, counts);  // gate, up and down of a layer count the same rows
    if (!fresh && at->second.size() != counts.size()) return fail(ErrorCode::kMalformed, "counts " + std::to_string(counts.size()) + " experts, another tensor of its layer " + std::to_string(at->second.size()) + ".", file.name() + ": " + quote(tensor.name));
    if (!fresh && at->second != counts) sink.facts.note("the tensors of layer " + std::to_string(*layer) + " do not count alike; the first one is taken");
  }
  if (layers.empty()) return fail(ErrorCode::kMalformed, "is the importance matrix of a model without experts.", file.name());
  DumpCounts counts;
  counts.where = file.name();
  uint64_t choices = 0;
  bool alike = true;
  for (const auto& [layer, of_layer] : layers) counts.experts = std::max(counts.experts, int(of_layer.size()));
  for (const auto& [layer, of_layer] : layers) {
    counts.layers.push_back(layer);
    uint64_t sum = 0;
    for (int e = 0; e < counts.experts; ++e) {
      counts.sums.count.push_back(size_t(e) < of_layer.size() ? of_layer[size_t(e)] : 0);
      sum += counts.sums.count.back();
    }
    alike = alike && (choices == 0 || choices == sum);
    choices = sum;
  }
  if (alike && tokens > 0 && choices % tokens == 0 && choices / tokens <= uint64_t(counts.experts)) {
    counts.tokens = tokens;
    counts.top_k = int(choices / tokens);
  }
  for (const char* key : {"imatrix.chunk_count", "imatrix.chunk_size"})
    if (const auto value = gguf.integer(key)) sink.facts.kept[key] = *value;
  if (const GgufValue* sets = gguf.find("imatrix.datasets"); sets != nullptr && std::holds_alternative<std::vector<std::string>>(*sets)) {
    for (const std::string& name : std::get<std::vector<std::string>>(*sets)) sink.facts.kept["imatrix.datasets"].push_back(printable(name));
  }
  return sink.counts(counts);
}

// i32 entries; each: i32 length, name, i32 calls, i32 values, f32[values]. Walked to say what it is of.
Result<void> refuse_legacy(const OpenFile& file) {
  uint64_t at = 0;
  const auto number = [&]() -> Result<int32_t> {
    int32_t value = 0;
    if (file.size() - at < 4) return fail(ErrorCode::kMalformed, "ends in the middle of an entry at byte " + std::to_string(at) + ": it is cut short, or no importance matrix.", file.name());
    SY_CHECK(file.read(at, std::span(reinterpret_cast<char*>(&value), 4)));
    at += 4;
    return value;
  };
  SY_TRY(const int32_t entries, number());
  if (entries < 1 || entries > 1'000'000) return fail(ErrorCode::kMalformed, "declares " + std::to_string(entries) + " entries: no importance matrix.", file.name());
  bool experts = false;
  for (int32_t i = 0; i < entries; ++i) {
    SY_TRY(const int32_t length, number());
    if (length < 1 || length > 1024 || uint64_t(length) > file.size() - at) return fail(ErrorCode::kMalformed, "entry " + std::to_string(i) + " declares a name of " + std::to_string(length) + " bytes at byte " + std::to_string(at - 4) + ".", file.name());
    std::string name(size_t(length), '\0');
    SY_CHECK(file.read(at, name));
    at += uint64_t(length);
    SY_TRY(const int32_t calls, number());
    SY_TRY(const int32_t values, number());
    if (calls < 0 || values < 0 || uint64_t(values) * 4 > file.size() - at) return fail(ErrorCode::kMalformed, "entry " + std::to_string(i) + " declares " + std::to_string(values) + " values at byte " + std::to_string(at - 4) + "; the file ends before.", file.name());
    at += uint64_t(values) * 4;
    experts = experts || expert_layer(name).has_value();
  }
  if (!experts) return fail(ErrorCode::kMalformed, "is the importance matrix of a model without experts.", file.name());
  return fail(ErrorCode::kMalformed, "is an importance matrix in the older .dat form, which does not count the tokens of each expert.", file.name(),
              "llama-imatrix writes the counts when its output is named .gguf.");
}

bool is_gguf(const DumpSource& source) { return source.start_of(source.names().front(), 4) == "GGUF"; }

}  // namespace

bool recognises_imatrix(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string& name = source.names().front();
  if (is_gguf(source)) return source.start_of(name, 4096).find("imatrix") != std::string::npos;
  return name.ends_with(".dat") && source.start_of(name, 256).find(".weight") != std::string::npos;
}

Result<void> read_imatrix(const DumpSource& source, const ImportOptions&, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; an importance matrix is one file.", source.shown());
  SY_TRY(const OpenFile file, source.file(source.names().front()));
  return is_gguf(source) ? read_gguf_counts(file, sink) : refuse_legacy(file);
}

}  // namespace switchyard::dumps

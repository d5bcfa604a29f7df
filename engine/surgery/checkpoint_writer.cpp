// See checkpoint_writer.h.
#include "engine/surgery/checkpoint_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/atomic_file.h"
#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/routing/edited_weights.h"
#include "engine/surgery/edited_config.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

constexpr size_t kChunk = 8 << 20;            // bytes copied at a time
constexpr uint64_t kLargestSide = 256 << 20;  // of a file that is copied beside the weights
constexpr const char* kProvenance = "switchyard_edits.json";
constexpr const char* kIndex = "model.safetensors.index.json";

Result<void> check_source(const Checkpoint& checkpoint) {
  const bool gguf = std::any_of(checkpoint.shards.begin(), checkpoint.shards.end(), [](const std::string& name) { return name.ends_with(".gguf"); });
  bool quantised = false;
  for_each_weight(checkpoint.plan, [&](const TensorRef& ref) { quantised |= ref.quantised != nullptr; });
  if (!gguf && !quantised) return {};
  return fail(ErrorCode::kUsage,
              gguf ? "is a GGUF file; only folders of safetensors are written." : "has quantised weights; only plain ones (F32, BF16, F16) are written.",
              checkpoint.name, "Export from the original, unquantised release.");
}

Result<void> check_times(const std::vector<EditCommand>& script) {
  for (size_t i = 0; i < script.size(); ++i)
    if (script[i].at_token.value_or(0) > 0)
      return fail(ErrorCode::kUsage, fmt::format("begins at token {}; a checkpoint holds what is in force from the first token on.", *script[i].at_token),
                  fmt::format("edits[{}]", i));
  return {};
}

bool is_power_of_two(double factor) {
  int exponent = 0;
  return factor == 0 || std::abs(std::frexp(factor, &exponent)) == 0.5;
}

// Products and means that 16 bits cannot hold; a run holds factors apart from the weights, in fp32.
bool rounds(const ModelPlan& plan, const Recipe& recipe) {
  if (plan.dtype == DType::kF32) return false;
  const auto any = [](const std::vector<float>& factors) { return !std::all_of(factors.begin(), factors.end(), is_power_of_two); };
  return std::any_of(recipe.layers.begin(), recipe.layers.end(), [&](const LayerRecipe& layer) {
    return any(layer.expert_scale) || any(layer.row_scale) || !is_power_of_two(layer.temperature) || !layer.logit_bias.empty();
  });
}

void store(std::span<const float> values, const TensorRef& target, DType dtype, std::vector<char>& to) {
  const int64_t stride = target.row_stride > 0 ? target.row_stride : target.cols;
  const size_t width = size_t(bits(dtype)) / 8;
  for (int64_t r = 0; r < target.rows; ++r)
    for (int64_t c = 0; c < target.cols; ++c) {
      const float value = rounded(dtype, values[size_t(r * target.cols + c)]);
      char* at = to.data() + size_t(target.element_offset + r * stride + c * target.col_stride) * width;
      const uint16_t half = dtype == DType::kBF16 ? exact_bf16(value) : dtype == DType::kF16 ? exact_f16(value) : 0;
      if (dtype == DType::kF32) std::memcpy(at, &value, sizeof(value));
      else std::memcpy(at, &half, sizeof(half));
    }
}

// Bytes of a shard by tensor, in the order of names; header and padding first.
std::string header_of(const std::vector<std::pair<std::string, const OutputTensor*>>& tensors) {
  OrderedJson header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = at + tensor->bytes();
    header[name] = {{"dtype", switchyard::name(tensor->dtype)}, {"shape", tensor->shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(uint64_t(text.size()) >> (8 * i));
  return bytes + text;
}

// Tokenizer, templates, generation settings, code and licence; not weights, nor what is written anew.
bool is_side_file(const std::string& name) {
  if (name == "config.json" || name == kIndex || name == kProvenance) return false;
  static constexpr std::string_view kEndings[] = {".json", ".txt", ".model", ".jinja", ".py", ".md", ".tiktoken"};
  const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
  return name.starts_with("LICENSE") || name.starts_with("NOTICE") || std::any_of(std::begin(kEndings), std::end(kEndings), ends);
}

Result<void> copy_side_files(const Folder& from, const fs::path& to) {
  for (const std::string& name : from.names()) {
    if (!is_side_file(name)) continue;
    std::error_code ignored;
    if (fs::is_directory(from.path() / name, ignored)) continue;
    SY_TRY(const std::string bytes, from.read_text(name, kLargestSide));
    SY_CHECK(write_file(to / name, bytes));
  }
  return {};
}

Result<void> check_target(const fs::path& folder, uint64_t bytes) {
  std::error_code problem;
  if (fs::exists(folder, problem) && !(fs::is_directory(folder, problem) && fs::is_empty(folder, problem)))
    return fail(ErrorCode::kOutput, "exists and is not an empty folder.", folder.string(), "Name a new folder.");
  const fs::path parent = folder.parent_path().empty() ? fs::path(".") : folder.parent_path();
  const auto space = fs::space(parent, problem);
  if (problem) return fail(ErrorCode::kOutput, "is no folder that can be written to: " + problem.message() + ".", parent.string());
  if (space.available < bytes)
    return fail(ErrorCode::kOutput, fmt::format("has {:.2f} GB free, the model needs {:.2f} GB.", double(space.available) / 1e9, double(bytes) / 1e9),
                parent.string());
  return {};
}

}  // namespace

Result<CheckpointWriter> CheckpointWriter::plan(const Checkpoint& checkpoint, const std::vector<EditCommand>& script) {
  SY_CHECK(check_source(checkpoint));
  SY_CHECK(check_times(script));
  const ModelPlan& plan = checkpoint.plan;
  Recipe recipe;
  for (const EditCommand& command : script) apply(command.edit, plan, recipe);

  CheckpointWriter writer(checkpoint, script);
  ExportSummary& summary = writer.summary_;
  summary.kept = kept_experts(plan, recipe);
  const std::vector<std::string> problems = inexpressible(plan, recipe, summary.kept);
  if (!problems.empty())
    return fail(ErrorCode::kUsage, fmt::format("{}", fmt::join(problems, " ")), checkpoint.name, "Nothing was written.");
  SY_TRY(writer.config_, edited_config(checkpoint.config_json, plan, recipe, summary.kept));
  SY_TRY(writer.tensors_, output_tensors(checkpoint, recipe, summary.kept));

  for (const Edit& edit : edits_of(recipe, plan)) summary.changes.push_back(describe(edit));
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    summary.experts_per_token.push_back(k_of(plan, recipe, summary.kept, row));
    const size_t kept = summary.kept[size_t(row)].size(), had = size_t(plan.routed(row).router.experts);
    if (kept < had) summary.notes.push_back(fmt::format("{}: {} of {} experts stay, with new ids", plan.row_name(row), kept, had));
  }
  if (rounds(plan, recipe))
    summary.notes.push_back(fmt::format("scales, temperatures and biases are multiplied into weights stored as {}, and rounded there", name(plan.dtype)));
  summary.bytes_before = checkpoint.weight_bytes();
  for (const auto& [name, tensor] : writer.tensors_) summary.bytes_after += tensor.bytes();
  return writer;
}

Result<void> CheckpointWriter::write(const fs::path& target, Task* task) const {
  const fs::path folder = target.filename().empty() ? target.parent_path() : target;
  SY_CHECK(check_target(folder, summary_.bytes_after));
  std::string name = (folder.parent_path() / ("." + folder.filename().string() + ".partial-XXXXXX")).string();
  if (!mkdtemp(name.data()))
    return fail(ErrorCode::kOutput, std::string("could not be made: ") + std::strerror(errno) + ".", name);
  auto done = write_into(name, task);
  if (done) done = check(name);
  std::error_code problem;
  if (done) {
    fs::permissions(name, fs::perms(0755), problem);
    fs::rename(name, folder, problem);
    if (problem) done = fail(ErrorCode::kOutput, "could not be given its name: " + problem.message() + ".", folder.string());
  }
  if (!done) fs::remove_all(name, problem);
  return done;
}

Result<void> CheckpointWriter::write_into(const fs::path& folder, Task* task) const {
  SY_TRY(const Folder source, Folder::open(checkpoint_->folder));
  SY_TRY(const auto weights, WeightStore::open(*checkpoint_, task));
  uint64_t done = 0;
  for (size_t shard = 0; shard < checkpoint_->shards.size(); ++shard) SY_CHECK(write_shard(folder, int(shard), *weights, done, task));
  SY_CHECK(weights->check_unchanged());
  SY_CHECK(copy_side_files(source, folder));
  if (source.has(kIndex)) {
    OrderedJson index = {{"metadata", {{"total_size", summary_.bytes_after}}}, {"weight_map", OrderedJson::object()}};
    for (const auto& [name, tensor] : tensors_) index["weight_map"][name] = checkpoint_->shards[size_t(tensor.shard)];
    SY_CHECK(write_file(folder / kIndex, index.dump(2) + "\n"));
  }
  SY_CHECK(write_file(folder / kProvenance, provenance()));
  return write_file(folder / "config.json", config_);
}

Result<void> CheckpointWriter::write_shard(const fs::path& folder, int shard, const WeightStore& weights, uint64_t& done, Task* task) const {
  std::vector<std::pair<std::string, const OutputTensor*>> tensors;
  for (const auto& [name, tensor] : tensors_)
    if (tensor.shard == shard) tensors.emplace_back(name, &tensor);
  if (tensors.empty()) return {};
  SY_TRY(const Folder source, Folder::open(checkpoint_->folder));
  std::map<int, OpenFile> files;  // an expert may come from another shard than that of its place
  const std::string& file = checkpoint_->shards[size_t(shard)];
  SY_TRY(AtomicFile out, AtomicFile::create(folder / file));
  SY_CHECK(out.write(header_of(tensors)));
  const auto go_on = [&]() -> Result<void> {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "the export was stopped; nothing was written.");
    if (task) task->report(double(done) / double(std::max<uint64_t>(summary_.bytes_after, 1)), "Writing " + file);
    return {};
  };
  std::vector<char> bytes;
  for (const auto& [name, tensor] : tensors) {
    bytes.clear();
    for (const OutputTensor::Piece& piece : tensor->pieces) {
      if (!files.contains(piece.shard)) {
        SY_TRY(OpenFile opened, source.open_file(checkpoint_->shards[size_t(piece.shard)]));
        files.emplace(piece.shard, std::move(opened));
      }
      for (uint64_t at = piece.begin; at < piece.end;) {
        SY_CHECK(go_on());
        const size_t count = std::min<uint64_t>(kChunk, piece.end - at);
        if (tensor->patches.empty()) bytes.clear();
        bytes.resize(bytes.size() + count);
        SY_CHECK(files.at(piece.shard).read(at, std::span(bytes).last(count)));
        if (tensor->patches.empty()) SY_CHECK(out.write({bytes.data(), count}));
        at += count;
        done += count;
      }
    }
    if (tensor->patches.empty()) continue;
    for (const OutputTensor::Patch& patch : tensor->patches) {
      SY_CHECK(go_on());
      SY_TRY(const std::vector<float> values, patch.values(weights));
      store(values, patch.target, tensor->dtype, bytes);
    }
    SY_CHECK(out.write({bytes.data(), bytes.size()}));
  }
  return out.commit();
}

// What was written opens and has the experts that it should.
Result<void> CheckpointWriter::check(const fs::path& folder) const {
  auto opened = open_checkpoint(folder.string());
  if (!opened)
    return fail(ErrorCode::kInternal, "the exported model does not open: " + opened.error().message(), checkpoint_->name, "Nothing was written.");
  for (int row = 0; row < int(opened->plan.rows.size()); ++row) {
    const RouterSpec& router = opened->plan.routed(row).router;
    if (router.experts != int(summary_.kept[size_t(row)].size()) || router.experts_per_token != summary_.experts_per_token[size_t(row)])
      return fail(ErrorCode::kUsage,
                  fmt::format("{} would have {} experts, {} per token, and its config.json can only say {} and {}.", opened->plan.row_name(row),
                              summary_.kept[size_t(row)].size(), summary_.experts_per_token[size_t(row)], router.experts, router.experts_per_token),
                  checkpoint_->name, "Nothing was written.");
  }
  return {};
}

std::string CheckpointWriter::provenance() const {
  OrderedJson kept = OrderedJson::array();
  for (size_t row = 0; row < summary_.kept.size(); ++row)
    kept.push_back({{"row", checkpoint_->plan.row_name(int(row))}, {"layer", checkpoint_->plan.moe_layers[row]}, {"old_ids", summary_.kept[row]}});
  const OrderedJson document = {{"schema", 1},
                                {"model", checkpoint_->name},
                                {"revision", checkpoint_->revision},
                                {"edits", OrderedJson::parse(to_json_script(script_))["edits"]},
                                {"changes", summary_.changes},
                                {"notes", summary_.notes},
                                {"experts", std::move(kept)}};
  return document.dump(2) + "\n";
}

}  // namespace switchyard

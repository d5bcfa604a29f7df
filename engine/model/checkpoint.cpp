// Opening a checkpoint: folder, configs, tensor headers, plan.
#include "engine/model/checkpoint.h"

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/families/families.h"
#include "engine/model/gguf_files.h"
#include "engine/model/hf_cache.h"
#include "engine/model/shards.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 4 << 20;
constexpr JsonLimits kConfigLimits{.bytes = kMaxConfigBytes};

struct Place {
  fs::path folder;
  std::string name, revision;
  std::string gguf;  // the file to open; empty: whatever the folder holds
};

Result<Place> find_model(std::string_view model) {
  if (model == "demo") {
    SY_TRY(const fs::path assets, find_assets());
    return Place{assets / "models" / "demo", "demo", ""};
  }
  const fs::path path(model);
  std::error_code error;
  if (fs::is_directory(path, error)) {
    const fs::path real = fs::canonical(path, error);
    const std::string repository = repository_of_cache_entry(real);
    if (repository.empty()) return Place{real, printable(real.filename().string()), ""};
    SY_TRY(const CachedModel cached, open_cache_entry(real, repository));
    return Place{cached.folder, repository, cached.revision};
  }
  if (is_gguf_name(model) && fs::is_regular_file(path, error)) {
    const fs::path whole = fs::absolute(path, error);
    return Place{whole.parent_path(), printable(whole.stem().string()), "", whole.filename().string()};
  }
  if (fs::exists(path, error))
    return fail(ErrorCode::kMalformed, "is a file, needed is a .gguf file or the folder that holds config.json.",
                printable(model, 400));
  if (is_repository_name(model)) {
    SY_TRY(const CachedModel cached, find_in_hf_cache(model));
    return Place{cached.folder, std::string(model), cached.revision};
  }
  return fail(ErrorCode::kNotFound, "is not a folder.", printable(model, 400),
              "Give a folder with config.json, a .gguf file, org/name of a model in the Hugging Face cache, or demo.");
}

Result<void> read_generation_config(std::string_view text, ModelPlan& plan, SamplingDefaults& sampling) {
  constexpr std::string_view kFile = "generation_config.json";
  SY_TRY(const Json json, parse_json(text, kFile, kConfigLimits));
  const JsonView view(json, std::string(kFile));
  SY_CHECK(view.as_object());
  SY_TRY(sampling.do_sample, view.boolean_or("do_sample", false));
  if (const auto value = view.find("temperature")) {
    SY_TRY(const double temperature, value->as_number(0, 1e6));
    sampling.temperature = static_cast<float>(temperature);
  }
  if (const auto value = view.find("top_p")) {
    SY_TRY(const double top_p, value->as_number(0, 1));
    sampling.top_p = static_cast<float>(top_p);
  }
  SY_TRY(const int64_t top_k, view.integer_or("top_k", 0, 0, kMaxVocab));
  sampling.top_k = static_cast<int>(top_k);
  SY_TRY(const int64_t start, view.integer_or("decoder_start_token_id", plan.decoder_start, 0, plan.vocab - 1));
  plan.decoder_start = static_cast<TokenId>(start);
  if (const auto value = view.find("forced_bos_token_id")) {
    SY_TRY(const int64_t forced, value->as_integer(0, plan.vocab - 1));
    plan.forced_bos = static_cast<TokenId>(forced);
  }
  if (const auto eos = view.find("eos_token_id")) {
    const auto as_list = [](int64_t id) { return std::vector<int64_t>{id}; };
    SY_TRY(const auto ids, eos->json().is_array() ? view.integers("eos_token_id", 0, plan.vocab - 1)
                                                  : eos->as_integer(0, plan.vocab - 1).map(as_list));
    plan.eos_ids.assign(ids.begin(), ids.end());
  }
  return {};
}

Result<Checkpoint> open_place(const Place& place) {
  SY_TRY(const Folder folder, Folder::open(place.folder));
  Checkpoint checkpoint{.folder = folder.path(), .name = place.name, .revision = place.revision};
  std::string gguf = place.gguf;
  if (gguf.empty() && !has_safetensors(folder)) {
    SY_TRY(gguf, only_gguf(folder));
  }
  Json config;
  TensorTable table;
  const std::string document = gguf.empty() ? "config.json" : gguf;
  if (gguf.empty()) {
    SY_TRY(checkpoint.config_json, folder.read_text("config.json", kMaxConfigBytes));
    SY_TRY(config, parse_json(checkpoint.config_json, document, kConfigLimits));
    SY_CHECK(family_of(JsonView(config, document)));  // before a word about its weights
    SY_TRY(table, read_tensor_table(folder));
  } else {
    SY_TRY(GgufModel model, read_gguf_model(folder, gguf));
    config = std::move(model.config);
    checkpoint.config_json = config.dump(2);
    table = std::move(model.table);
  }
  const JsonView config_view(config, document);
  checkpoint.shards = std::move(table.shards);
  checkpoint.tensors = std::move(table.tensors);
  SY_TRY(checkpoint.plan, plan_model(config_view, checkpoint.tensors, checkpoint.shards));
  if (folder.has("generation_config.json")) {
    SY_TRY(const std::string text, folder.read_text("generation_config.json", kMaxConfigBytes));
    SY_CHECK(read_generation_config(text, checkpoint.plan, checkpoint.sampling));
  }
  return checkpoint;
}

}  // namespace

const TensorInfo* Checkpoint::find(std::string_view tensor) const {
  return find_tensor(tensors, tensor);
}

uint64_t Checkpoint::weight_bytes() const {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors) total += tensor.end - tensor.begin;
  return total;
}

Result<Checkpoint> open_checkpoint(std::string_view model) {
  SY_TRY(const Place place, find_model(model));
  return open_place(place);
}

}  // namespace switchyard

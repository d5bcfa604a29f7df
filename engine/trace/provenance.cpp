// The model part of a trace header: which files, which hashes, which config.
#include "engine/trace/provenance.h"

#include <openssl/evp.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "engine/base/json.h"
#include "engine/trace/trace.h"

namespace switchyard {

std::string sha256_of_text(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1) return "";
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

Result<TraceHeader> make_trace_header(const Checkpoint& checkpoint, CaptureLevel capture, Task* task) {
  const ModelPlan& plan = checkpoint.plan;
  if (plan.moe_layers.empty())
    return fail(ErrorCode::kUsage, "the model has no routed layer to record.", checkpoint.name);
  TraceHeader header;
  header.moe_layers = plan.moe_layers;
  for (int row = 0; row < int(plan.rows.size()); ++row) header.router_names.push_back(plan.row_name(row));
  header.experts = plan.max_experts();
  header.experts_per_token = plan.max_experts_per_token();
  header.router = plan.routed(0).router;
  header.capture = capture;

  nlohmann::ordered_json model;
  model["schema"] = 1;
  model["name"] = checkpoint.name;
  model["revision"] =
      checkpoint.revision.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(checkpoint.revision);
  model["family"] = plan.family;
  model["dtype"] = std::string(name(plan.dtype));
  model["tool_version"] = SWITCHYARD_VERSION;
  model["files"] = nlohmann::ordered_json::array();
  std::vector<std::string> files = checkpoint.shards;
  for (const char* file : {"config.json", "tokenizer.json"}) {
    std::error_code ignored;
    if (std::filesystem::exists(checkpoint.folder / file, ignored)) files.emplace_back(file);
  }
  for (const std::string& file : files) {
    SY_TRY(const std::string sha256, sha256_of_file(checkpoint.folder / file, task));
    std::error_code ignored;
    model["files"].push_back(
        {{"name", file}, {"bytes", std::filesystem::file_size(checkpoint.folder / file, ignored)}, {"sha256", sha256}});
    if (file == "tokenizer.json") model["tokenizer_sha256"] = sha256;
  }
  model["config"] = nlohmann::ordered_json::parse(checkpoint.config_json, nullptr, false);
  if (model["config"].is_discarded()) model["config"] = nullptr;
  header.model_config_json = model.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  header.edits_json = R"({"schema":1,"edits":[]})";
  header.run_json = nlohmann::ordered_json{{"tool", "switchyard"}, {"tool_version", SWITCHYARD_VERSION}}.dump();
  return header;
}

Result<void> add_router_weights(TraceHeader& header, const Checkpoint& checkpoint, Task* task) {
  const ModelPlan& plan = checkpoint.plan;
  const int width = int(plan.routed(0).router_weight.cols);
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    const RoutedSpec& routed = plan.routed(row);
    if (routed.router.product_key || routed.router_weight.cols != width)
      return fail(ErrorCode::kUsage, routed.router.product_key ? "the router of " + plan.row_name(row) + " has no row for each expert."
                                                               : "the routers read inputs of different widths.", checkpoint.name, "Record without the routers' weights.");
  }
  SY_TRY(const auto weights, WeightStore::open(checkpoint, task));
  auto all = std::make_shared<std::vector<float>>(plan.rows.size() * size_t(header.experts) * size_t(width));
  for (int row = 0; row < int(plan.rows.size()); ++row) SY_CHECK(weights->read(plan.routed(row).router_weight, all->data() + size_t(row) * size_t(header.experts) * size_t(width)));
  header.router_weight = std::move(all);
  header.router_width = width;
  return {};
}

}  // namespace switchyard

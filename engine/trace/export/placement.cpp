// Placements and counts for serving engines: SGLang, vLLM, ExFlow.
#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/trace/export/torch_file.h"
#include "engine/trace/export/writers.h"

namespace switchyard::exports {
namespace {

using Table = std::vector<std::vector<int64_t>>;  // [layers][…]

Result<Json> read_placement(const Job& job, const char* key, const char* command) {
  const auto& path = job.request.options.placement;
  if (path.empty()) return fail(ErrorCode::kUsage, "needs a placement.", "--placement", std::string("Write one: switchyard place ") + command + " --json -o placement.json");
  SY_TRY(const Folder folder, Folder::open(path.has_parent_path() ? path.parent_path() : "."));
  SY_TRY(const std::string text, folder.read_text(path.filename().string(), 64 << 20));
  SY_TRY(Json placement, parse_json(text, printable(path.string(), 400), {.bytes = 64 << 20}));
  if (!placement.is_object() || !placement.contains(key))
    return fail(ErrorCode::kMalformed, std::string("has no \"") + key + "\".", printable(path.string(), 400), std::string("switchyard place ") + command + " writes it.");
  return placement;
}

// One row for each row of the trace, all of one length, values from 0 to `limit` - 1.
Result<Table> table_of(const Job& job, const Json& placement, const char* key, int64_t limit) {
  const JsonView view(placement, printable(job.request.options.placement.string(), 400));
  SY_TRY(const std::vector<JsonView> rows, view.array(key));
  if (rows.size() != size_t(job.info().layers))
    return view.fail(std::string(key) + " has " + std::to_string(rows.size()) + " layers, the trace has " + std::to_string(job.info().layers));
  Table table;
  for (const JsonView& row : rows) {
    SY_TRY(const std::vector<JsonView> values, row.as_array());
    auto& out = table.emplace_back();
    for (const JsonView& value : values) {
      SY_TRY(out.emplace_back(), value.as_integer(0, limit - 1));
    }
    if (out.empty() || out.size() != table.front().size()) return row.fail("has " + std::to_string(out.size()) + " values, the rows before have " + std::to_string(table.front().size()));
  }
  return table;
}

// Layers of the model: as given, as its config says, or as many as the last row needs.
int model_layers(Job& job) {
  const int least = *std::max_element(job.info().moe_layers.begin(), job.info().moe_layers.end()) + 1;
  if (job.request.options.layers > 0) return job.request.options.layers;
  const auto meta = nlohmann::json::parse(job.info().model_config_json, nullptr, false);
  if (meta.is_object() && meta.contains("config") && meta["config"].is_object()) {
    const auto& config = meta["config"];
    if (config.contains("num_hidden_layers") && config["num_hidden_layers"].is_number_integer() && config["num_hidden_layers"].get<int>() >= least)
      return config["num_hidden_layers"].get<int>();
  }
  job.notes.push_back("the trace does not tell how many layers its model has; " + std::to_string(least) + " are written, up to the last one with experts (--layers)");
  return least;
}

// A row for every layer of the model; dense ones get `dense`.
Result<Table> spread(Job& job, const Table& rows, const std::vector<int64_t>& dense) {
  const int layers = model_layers(job);
  Table all(size_t(layers), dense);
  for (size_t row = 0; row < rows.size(); ++row) {
    const int layer = job.info().moe_layers[row];
    if (layer >= layers) return fail(ErrorCode::kUsage, "--layers " + std::to_string(layers) + " was given, the trace has layer " + std::to_string(layer) + ".");
    all[size_t(layer)] = rows[row];
  }
  return all;
}

std::vector<int64_t> flat(const Table& table) {
  std::vector<int64_t> out;
  for (const auto& row : table) out.insert(out.end(), row.begin(), row.end());
  return out;
}

}  // namespace

// Either the counts, from which the server finds a placement, or a placement.
Result<void> write_sglang_location(Job& job) {
  SY_CHECK(need_one_row(job.info()));
  const bool placed = !job.request.options.placement.empty();
  const int experts = job.info().experts;
  Table rows;
  std::vector<int64_t> dense;
  if (placed) {
    SY_TRY(const Json placement, read_placement(job, "physical_to_logical", "--method eplb"));
    SY_TRY(rows, table_of(job, placement, "physical_to_logical", experts));
    for (size_t slot = 0; slot < rows.front().size(); ++slot) dense.push_back(int64_t(slot) % experts);
  } else {
    SY_TRY(const Sums sums, sums_of(job));
    for (int row = 0; row < job.info().layers; ++row)
      rows.emplace_back(sums.counts.count.begin() + row * experts, sums.counts.count.begin() + (row + 1) * experts);
    dense.assign(size_t(experts), 0);
  }
  SY_TRY(const Table all, spread(job, rows, dense));
  const char* key = placed ? "physical_to_logical_map" : "logical_count";
  SY_CHECK(job.files.begin());
  if (job.request.target.extension() == ".pt") {
    TorchDict dict;
    dict.items.emplace_back(std::string(key), TorchTensor{{int64_t(all.size()), int64_t(all.front().size())}, flat(all)});
    return job.files.write(torch_file(dict, "archive"));
  }
  return job.files.write(nlohmann::ordered_json{{key, all}}.dump() + "\n");
}

Result<void> write_vllm_eplb(Job& job) {
  const int64_t experts = job.info().experts;
  SY_TRY(const Json placement, read_placement(job, "physical_to_logical", "--method eplb"));
  SY_TRY(const Table physical, table_of(job, placement, "physical_to_logical", experts));
  Table counts(physical.size(), std::vector<int64_t>(size_t(experts), 0));
  size_t copies = 1;
  for (size_t row = 0; row < physical.size(); ++row)
    for (const int64_t expert : physical[row]) copies = std::max(copies, size_t(++counts[row][size_t(expert)]));
  std::vector<Table> logical;  // [layers][experts][copies]
  for (const auto& row : physical) {
    Table& of_layer = logical.emplace_back(size_t(experts), std::vector<int64_t>());
    for (size_t slot = 0; slot < row.size(); ++slot) of_layer[size_t(row[slot])].push_back(int64_t(slot));
    for (auto& slots : of_layer) {
      if (slots.empty()) return fail(ErrorCode::kMalformed, "places some expert nowhere.", printable(job.request.options.placement.string(), 400));
      slots.resize(copies, -1);
    }
  }
  std::vector<int64_t> logical_flat;
  for (const Table& of_layer : logical)
    for (const auto& slots : of_layer) logical_flat.insert(logical_flat.end(), slots.begin(), slots.end());
  const uint64_t layers = physical.size();
  const auto array = [&](const char* name, const std::vector<uint64_t>& shape, const std::vector<int64_t>& values) -> Result<void> {
    SY_CHECK(job.files.begin(std::string(name) + ".npy"));
    SY_CHECK(job.files.write(npy_header("<i8", shape)));
    return job.files.write(bytes_of(values));
  };
  SY_CHECK(array("physical_to_logical_map", {layers, physical.front().size()}, flat(physical)));
  SY_CHECK(array("logical_to_physical_map", {layers, uint64_t(experts), copies}, logical_flat));
  SY_CHECK(array("logical_replica_count", {layers, uint64_t(experts)}, flat(counts)));
  SY_CHECK(job.files.begin("eplb.json"));
  return job.files.write(nlohmann::ordered_json{{"moe_layers", job.info().moe_layers}, {"physical_to_logical_map", physical}, {"logical_to_physical_map", logical}, {"logical_replica_count", counts}}.dump() + "\n");
}

// .npy: the first choices [tokens, layers] that ExFlow profiles; .csv: a placement, Expert = layer * E + e.
Result<void> write_exflow(Job& job) {
  const TraceInfo& info = job.info();
  if (job.request.target.extension() != ".npy") {
    SY_TRY(const Json placement, read_placement(job, "placement", "--method affinity"));
    SY_TRY(const Table nodes, table_of(job, placement, "placement", 65'536));
    if (nodes.front().size() != size_t(info.experts))
      return fail(ErrorCode::kMalformed, "places " + std::to_string(nodes.front().size()) + " experts, the trace has " + std::to_string(info.experts) + ".", printable(job.request.options.placement.string(), 400));
    std::string text = "Expert,Node\n";
    for (size_t row = 0; row < nodes.size(); ++row)
      for (size_t e = 0; e < nodes[row].size(); ++e) text += std::to_string(row * size_t(info.experts) + e) + "," + std::to_string(nodes[row][e]) + "\n";
    SY_CHECK(job.files.begin());
    return job.files.write(text);
  }
  SY_CHECK(job.need("/routing/expert_id"));
  if (!info.ranked) return fail(ErrorCode::kUsage, "does not tell which expert of a token is its first choice (id_order \"unknown\").", printable(info.path.string(), 400));
  SY_CHECK(job.files.begin());
  SY_CHECK(job.files.write(npy_header("<i8", {info.tokens, uint64_t(info.layers)})));
  const size_t layers = size_t(info.layers), k = size_t(info.top_k);
  for (uint64_t first = 0; first < info.tokens; first += kRows / 8) {
    const uint64_t count = std::min(kRows / 8, info.tokens - first);
    std::vector<int64_t> choices(count * layers);
    for (size_t row = 0; row < layers; ++row) {
      SY_TRY(const std::vector<ExpertId> ids, job.trace->expert_ids(int(row), first, count));
      for (uint64_t t = 0; t < count; ++t) choices[t * layers + row] = ids[t * k] == kNoExpert ? -1 : int64_t(ids[t * k]);
    }
    SY_CHECK(job.files.write(bytes_of(choices)));
    SY_CHECK(job.step(double(first) / double(info.tokens)));
  }
  return {};
}

}  // namespace switchyard::exports

// See trace_items.h.
#include "engine/report/trace_items.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/trace/trace_plugins.h"

namespace switchyard::reports {
namespace {

constexpr uint64_t kTokens = 320;  // of a text that is shown

// Members of an object as texts; nested ones by their path.
void flatten(const Json& json, const std::string& path, std::vector<std::pair<std::string, std::string>>& out) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) flatten(value, path.empty() ? key : path + "." + key, out);
  } else if (json.is_string()) {
    out.emplace_back(path, json.get<std::string>());
  } else if (!json.is_null()) {
    out.emplace_back(path, json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

Json parsed(const std::string& text) {
  auto json = parse_json(text, "header of the trace");
  return json ? std::move(*json) : Json::object();
}

bool holds(const TraceInfo& info, std::string_view field) { return std::find(info.fields.begin(), info.fields.end(), field) != info.fields.end(); }

// The tokenizer that wrote the ids: of the model that the trace names, where it is on this machine and its file is the same.
std::shared_ptr<const Tokenizer> tokenizer_of(const TraceInfo& info, std::string& why) {
  const Json meta = parsed(info.model_config_json);
  why = "the trace does not name its model, so tokens are shown as numbers";
  if (!meta.is_object() || !meta.contains("name") || !meta["name"].is_string()) return nullptr;
  const std::string name = meta["name"];
  why = quote(name, 120) + " is not on this machine, so tokens are shown as numbers";
  const auto checkpoint = open_checkpoint(name);
  if (!checkpoint) return nullptr;
  if (meta.contains("tokenizer_sha256") && meta["tokenizer_sha256"].is_string()) {
    const auto sha256 = sha256_of_file(checkpoint->folder / "tokenizer.json");
    if (!sha256 || *sha256 != meta["tokenizer_sha256"].get<std::string>()) {
      why = quote(name, 120) + " has another tokenizer now than when the trace was made, so tokens are shown as numbers";
      return nullptr;
    }
  }
  auto tokenizer = Tokenizer::load(*checkpoint);
  if (!tokenizer) return nullptr;
  return *tokenizer;
}

void add_edits_of(const std::string& json, int epoch, uint64_t first_token, ResultTable& out) {
  const Json script = parsed(json);
  if (!script.is_object() || !script.contains("edits") || !script["edits"].is_array()) return;
  for (const Json& edit : script["edits"]) {
    if (!edit.is_object()) continue;
    Json rest = edit;
    std::string kind;
    if (rest.contains("kind") && rest["kind"].is_string()) kind = rest["kind"];
    rest.erase("kind");
    std::string fields;
    for (const auto& [key, value] : rest.items()) fields += (fields.empty() ? "" : ", ") + key + " " + value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 200);
    out.rows.push_back({epoch, first_token, kind, fields});
  }
}

}  // namespace

Result<Side> open_side(const std::string& path, Task* task) {
  Side side;
  side.input.path = path;
  SY_TRY(side.input.sha256, sha256_of_file(path, task));
  std::error_code ignored;
  side.input.bytes = std::filesystem::file_size(path, ignored);
  std::vector<std::unique_ptr<TraceReader>> readers(1);
  SY_TRY(readers[0], TraceReader::open(path, task));
  side.info = readers[0]->info();
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers)));
  side.walk = std::make_unique<TraceWalk>(std::move(walk));
  return side;
}

void add_provenance(const Side& side, const std::string& before, std::vector<std::pair<std::string, std::string>>& out) {
  Json model = parsed(side.info.model_config_json);
  std::vector<std::pair<std::string, std::string>> rows;
  for (const char* key : {"name", "revision", "family", "dtype", "tokenizer_sha256"})
    if (model.is_object() && model.contains(key)) flatten(model[key], std::string("model.") + key, rows);
  if (model.is_object() && model.contains("files") && model["files"].is_array()) {
    for (const Json& file : model["files"]) {
      if (!file.is_object() || !file.contains("name") || !file.contains("sha256") || !file["name"].is_string() || !file["sha256"].is_string()) continue;
      rows.emplace_back("model file", file["name"].get<std::string>() + ", SHA-256 " + file["sha256"].get<std::string>());
      if (rows.size() > 24) break;
    }
  }
  std::vector<std::pair<std::string, std::string>> run;
  flatten(parsed(side.info.run_json), "run", run);
  if (run.size() > 48) run.resize(48);
  rows.insert(rows.end(), run.begin(), run.end());
  if (const auto epochs = side.walk->trace(0).epochs())
    for (const TracePlugin& plugin : plugins_of(*epochs)) rows.emplace_back("routed by the plugin", describe(plugin));
  for (auto& [what, value] : rows) out.emplace_back(before + what, std::move(value));
}

Result<void> add_facts(const Side& side, ReportSection& to) {
  const TraceInfo& info = side.info;
  ResultTable table{"facts", {"what", "value"}, {}};
  const auto add = [&](const char* what, Document value) { table.rows.push_back({what, std::move(value)}); };
  const Json model = parsed(info.model_config_json);
  for (const char* key : {"name", "family"})
    if (model.is_object() && model.contains(key) && model[key].is_string()) add(key[0] == 'n' ? "model" : "family", Document(model[key].get<std::string>()));
  add("routing layers", info.layers);
  add("experts of a layer", info.experts);
  add("experts of a token", info.top_k);
  add("tokens", info.tokens);
  add("sequences", info.sequences);
  constexpr const char* kLevels[] = {"off", "ids", "weights", "logits"};
  add("capture", kLevels[size_t(info.capture)]);
  add("closed cleanly", info.complete ? "yes" : "no: what is committed");
  add("dropped tokens", info.dropped);
  const std::string words[] = {"switchyard", "trace", "info", side.input.path};
  to.blocks.push_back({ReportTable{std::move(table), 0}, "What the trace holds.", shell_line(words)});
  return {};
}

Result<void> add_edits(const Side& side, ReportSection& to) {
  ResultTable table{"edits", {"epoch", "first_token", "kind", "fields"}, {}};
  SY_TRY(const auto epochs, side.walk->trace(0).epochs());
  for (size_t e = 0; e < epochs.size(); ++e) add_edits_of(epochs[e].json, int(e), epochs[e].first_token, table);
  if (epochs.empty()) add_edits_of(side.info.edits_json, 0, 0, table);
  if (table.rows.empty()) {
    to.blocks.push_back({ReportText{"No edit was in force: the model routed as its checkpoint says."}, {}, {}});
    return {};
  }
  const std::string words[] = {"switchyard", "trace", "info", side.input.path, "--json"};
  to.blocks.push_back({ReportTable{std::move(table), 0}, "Edits in force, epoch by epoch; each epoch lists all of its own.", shell_line(words)});
  return {};
}

Result<void> add_text(const Side& side, const ReportItem& item, ReportSection& to, std::vector<std::string>& notes) {
  const TraceInfo& info = side.info;
  const auto given = item.options.find("quantity");
  const std::string quantity = given != item.options.end() ? given->second : "entropy";
  if (quantity != "entropy" && quantity != "margin" && quantity != "topk_mass") return fail(ErrorCode::kUsage, "is " + quote(quantity, 40) + ", needs entropy, margin or topk_mass.", "text: quantity");
  if (!holds(info, "/routing/" + quantity) || !holds(info, "/tokens/token_id") || info.counts_only) {
    notes.push_back("text: the trace holds no " + quantity + " of single tokens. Record it with --capture weights.");
    to.blocks.push_back({ReportText{"The trace holds no " + quantity + " of single tokens."}, {}, {}});
    return {};
  }
  const TraceReader& trace = side.walk->trace(0);
  SY_TRY(const auto offsets, trace.sequence_offsets());
  const uint64_t length = offsets.size() > 1 ? uint64_t(offsets[1]) : info.tokens, shown = std::min(length, kTokens);
  SY_TRY(const auto ids, trace.token_ids(0, shown));
  std::vector<double> sum(shown);
  std::vector<int> rows(shown);
  for (int row = 0; row < info.layers; ++row) {
    SY_TRY(const auto values, trace.scalar(quantity, row, 0, shown));
    for (size_t t = 0; t < shown; ++t)
      if (std::isfinite(values[t])) sum[t] += double(values[t]), ++rows[t];
  }
  ChartSpec chart;
  chart.kind = ChartKind::kStrip;
  chart.name = "text-" + quantity;
  chart.title = "The first tokens, coloured by " + quantity + ", mean over the layers";
  chart.quantity = quantity;
  chart.row_title = "quantity", chart.column_title = "token";
  chart.rows = {quantity};
  chart.left_out = size_t(length - shown);
  std::string why;
  const auto tokenizer = tokenizer_of(info, why);
  if (tokenizer == nullptr) notes.push_back("text: " + why + ".");
  std::optional<StreamDecoder> decoder;
  if (tokenizer) decoder.emplace(tokenizer);
  for (size_t t = 0; t < shown; ++t) {
    chart.columns.push_back(decoder ? decoder->push(ids[t]) : "#" + std::to_string(ids[t]));
    chart.values.push_back(rows[t] > 0 ? std::optional(sum[t] / rows[t]) : std::nullopt);
  }
  const std::string words[] = {"switchyard", "report", side.input.path, "--section", "text:quantity=" + quantity, "-o", "figures.html", "--figures", "figures"};
  to.blocks.push_back({std::move(chart), "The first tokens, coloured by " + quantity + ", mean over the layers.", shell_line(words)});
  return {};
}

}  // namespace switchyard::reports

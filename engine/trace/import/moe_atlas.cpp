// moe-routing-atlas: a prompt with a row for each choice, JSON or JSONL (formats.md F11); and speculative-moe's JSONL.
#include <algorithm>
#include <map>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/routes.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

Result<void> give_trace(const Json& json, const std::string& place, DumpSink& sink) {
  const JsonView trace(json, place);
  SY_TRY(const int64_t experts, trace.integer("num_experts", 1, 65'534));
  SY_TRY(const int64_t top_k, trace.integer("top_k", 1, std::min<int64_t>(experts, 4096)));
  SY_TRY(const std::string model, trace.text_or("model_id", ""));
  SY_TRY(const JsonView ids, trace.at("token_ids"));
  SY_TRY(const JsonView activations, trace.at("activations"));
  SY_TRY(const Numbers token_ids, numbers(ids.json(), place + ": token_ids"));
  sink.facts.experts = std::max(sink.facts.experts, int(experts));
  if (sink.facts.model.empty()) sink.facts.model = printable(model, 200);
  SY_TRY(const std::string domain, trace.text_or("domain", ""));
  DumpTokens piece;
  piece.where = place;
  piece.tokens = uint32_t(token_ids.values.size());
  piece.slots = int(top_k);
  for (const double value : token_ids.values) {
    SY_TRY(const int64_t id, whole(value, 0, INT32_MAX, place + ": token_ids"));
    piece.token_ids.push_back(uint32_t(id));
  }
  // By layer and token, as the rows come: rows can be missing.
  std::map<int, std::map<uint32_t, std::vector<std::pair<ExpertId, double>>>> rows;
  SY_TRY(const std::vector<JsonView> all, activations.as_array());
  for (const JsonView& row : all) {
    SY_TRY(const int64_t layer, row.integer("layer", 0, 65'535));
    SY_TRY(const int64_t token, row.integer("token_idx", 0, int64_t(piece.tokens) - 1));
    SY_TRY(const int64_t expert, row.integer("expert_idx", 0, experts - 1));
    SY_TRY(const double weight, row.number("gate_weight"));
    auto& slots = rows[int(layer)][uint32_t(token)];
    if (int64_t(slots.size()) == top_k) return row.fail("is one more expert of its token than top_k " + std::to_string(top_k));
    slots.emplace_back(ExpertId(expert), weight);
  }
  const size_t cells = rows.size() * piece.tokens * size_t(piece.slots);
  if (cells > kMaxValues) return trace.fail("has more layers and tokens than fit into memory");
  piece.ids.assign(cells, kNoExpert);
  piece.weights.assign(cells, 0);
  for (const auto& [layer, tokens] : rows) {
    for (const auto& [token, slots] : tokens) {
      const size_t at = piece.at(piece.layers.size(), token);
      for (size_t slot = 0; slot < slots.size(); ++slot) {
        piece.ids[at + slot] = slots[slot].first;
        piece.weights[at + slot] = slots[slot].second;
      }
    }
    piece.layers.push_back(layer);
  }
  sink.facts.note("a token without a row in a layer has empty slots there");
  SY_CHECK(sink.begin_sequence(0, domain));
  return sink.tokens(piece);
}

bool is_speculative(const std::string& start) { return start.find("\"gating_probs\"") != std::string::npos && start.find("\"token_idx\"") != std::string::npos; }

}  // namespace

bool recognises_moe_atlas(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string start = source.start_of(source.names().front(), 64 << 10);
  return (start.find("\"activations\"") != std::string::npos && start.find("\"token_ids\"") != std::string::npos) || is_speculative(start);
}

Result<void> read_moe_atlas(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder.", source.shown(), "Name one of its files.");
  SY_TRY(const OpenFile file, source.file(source.names().front()));
  if (is_speculative(source.start_of(source.names().front(), 64 << 10))) {
    return read_routes(file, {"problem_id", "token_idx", "layer", "experts", "gating_probs", nullptr}, options, sink);
  }
  return for_each_document(file, options.line_bytes > 0 ? options.line_bytes : kLongLineCap, [&](const Json& document, const std::string& place, double fraction) -> Result<void> {
    sink.progress(fraction);
    const Json& traces = document.is_object() && document.contains("traces") ? document["traces"] : document;
    if (!traces.is_array()) return give_trace(traces, place, sink);
    for (size_t i = 0; i < traces.size(); ++i) SY_CHECK(give_trace(traces[i], place + ", trace " + std::to_string(i), sink));
    return {};
  });
}

}  // namespace switchyard::dumps

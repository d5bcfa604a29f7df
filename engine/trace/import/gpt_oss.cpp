// gpt-oss fingerprints: one record with the routing of each generated token, or shares over many (formats.md F11).
#include <algorithm>
#include <cmath>
#include <map>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

struct TokenRow {
  std::map<int, std::pair<std::vector<ExpertId>, std::vector<double>>> layers;
};

Result<void> add_token(const std::string& key, const JsonView& layers, std::map<int, TokenRow>& rows) {
  const auto position = number_after(key, "token_");
  if (!position) return layers.fail("stands under " + quote(key) + ", needs token_N");
  if (!layers.json().is_object()) return layers.fail("is no object of layers");
  for (const auto& [name, value] : layers.json().items()) {
    const auto layer = number_after(name, "layer_");
    const std::string where = layers.document() + ": " + key + ", " + printable(name);
    if (!layer || !value.is_object() || !value.contains("selected_experts") || !value.contains("selected_probs"))
      return fail(ErrorCode::kMalformed, "has no selected_experts and selected_probs.", where);
    SY_TRY(const Numbers ids, numbers(value["selected_experts"], where));
    SY_TRY(const Numbers probs, numbers(value["selected_probs"], where));
    if (ids.values.size() != probs.values.size() || ids.values.size() > 4096)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(ids.values.size()) + " experts and " + std::to_string(probs.values.size()) + " probabilities.", where);
    SY_TRY(std::vector<ExpertId> found, ids_of(ids.values, where));
    if (!rows[*position].layers.emplace(*layer, std::pair(std::move(found), probs.values)).second) return fail(ErrorCode::kMalformed, "is there twice.", where);
  }
  return {};
}

Result<void> give_example(const JsonView& document, DumpSink& sink) {
  SY_TRY(const JsonView data, document.at("router_data"));
  std::map<int, TokenRow> rows;  // by position
  const auto add_all = [&](const JsonView& object) -> Result<void> {
    SY_TRY(const auto members, object.as_object());
    for (const auto& [key, value] : members) SY_CHECK(add_token(key, value, rows));
    return {};
  };
  if (data.json().is_array()) {
    SY_TRY(const std::vector<JsonView> each, data.as_array());
    for (const JsonView& object : each) SY_CHECK(add_all(object));
  } else {
    SY_CHECK(add_all(data));
  }
  DumpTokens piece;
  piece.where = document.document();
  std::map<int, size_t> layers;
  for (const auto& [position, row] : rows) {
    piece.positions.push_back(uint32_t(position));
    for (const auto& [layer, choice] : row.layers) {
      layers.emplace(layer, 0);
      piece.slots = std::max(piece.slots, int(choice.first.size()));
    }
  }
  for (auto& [layer, row] : layers) {
    row = piece.layers.size();
    piece.layers.push_back(layer);
  }
  piece.tokens = uint32_t(rows.size());
  piece.phases.assign(rows.size(), 1);
  const size_t cells = piece.layers.size() * rows.size() * size_t(piece.slots);
  if (cells > kMaxValues) return document.fail("holds more layers and tokens than fit into memory");
  piece.ids.assign(cells, kNoExpert);
  piece.weights.assign(cells, 0);
  size_t token = 0;
  for (const auto& [position, row] : rows) {
    for (const auto& [layer, choice] : row.layers) {
      const size_t at = piece.at(layers[layer], token);
      std::copy(choice.first.begin(), choice.first.end(), piece.ids.begin() + ptrdiff_t(at));
      std::copy(choice.second.begin(), choice.second.end(), piece.weights.begin() + ptrdiff_t(at));
    }
    ++token;
  }
  sink.facts.renormalised = true;  // softmax over the selected, stored in bf16
  sink.facts.note("only generated tokens have rows; positions count from the start of the prompt");
  SY_CHECK(sink.begin_sequence(0));
  return sink.tokens(piece);
}

// Shares of the tokens: times the tokens they are whole numbers again.
Result<void> give_aggregate(const JsonView& document, const ImportOptions& options, DumpSink& sink) {
  SY_TRY(const double tokens, document.number("num_think_tokens"));
  if (!(tokens >= 1 && tokens < 1e15)) return document.fail("has num_think_tokens " + std::to_string(tokens) + ", needs at least 1");
  SY_TRY(const JsonView analytics, document.at("think_expert_analytics"));
  SY_TRY(const auto layers, analytics.as_object());
  std::map<int, std::map<int, std::pair<uint64_t, double>>> sums;
  int experts = options.experts;
  for (const auto& [name, of_layer] : layers) {
    const auto layer = number_after(name, "layer_");
    if (!layer) return of_layer.fail("stands under " + quote(name) + ", needs layer_N");
    SY_TRY(const auto members, of_layer.as_object());
    for (const auto& [key, value] : members) {
      const auto expert = whole_text(key);
      if (!expert || *expert < 0 || *expert >= kNoExpert) return value.fail("stands under " + quote(key) + ", needs the number of an expert");
      SY_TRY(const double share, value.number("count_frequency"));
      SY_TRY(const double density, value.number("prob_density"));
      const double count = share * tokens;
      if (!(count >= 0 && count < 1e15) || std::abs(count - std::round(count)) > 1e-6 * std::max(1.0, count))
        return value.fail("has count_frequency " + std::to_string(share) + ", which is no share of " + std::to_string(tokens) + " tokens");
      sums[*layer][int(*expert)] = {uint64_t(std::llround(count)), density * tokens};
      experts = std::max(experts, int(*expert) + 1);
    }
  }
  if (sums.empty() || sums.size() > 2048 || sums.size() * size_t(experts) > kMaxValues) return document.fail("has no layers, or too many");
  DumpCounts counts;
  counts.where = document.document();
  counts.experts = experts;
  if (options.experts == 0) sink.facts.note("the number of experts is not in the dump; " + std::to_string(experts) + " is one more than the largest id in it (--experts says it)");
  for (const auto& [layer, row] : sums) {
    counts.layers.push_back(layer);
    const size_t at = counts.sums.count.size();
    counts.sums.count.resize(at + size_t(experts));
    counts.sums.weight_sum.resize(at + size_t(experts));
    for (const auto& [expert, sum] : row) {
      counts.sums.count[at + size_t(expert)] = sum.first;
      counts.sums.weight_sum[at + size_t(expert)] = sum.second;
    }
  }
  sink.facts.note("shares were multiplied by num_think_tokens; some of these tokens have no row");
  return sink.counts(counts);
}

}  // namespace

bool recognises_gpt_oss(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string& name = source.names().front();
  const std::string start = source.start_of(name, 512 << 10);
  return start.find("\"router_data\"") != std::string::npos || start.find("\"think_expert_analytics\"") != std::string::npos;
}

Result<void> read_gpt_oss(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder.", source.shown(), "Name one of its files.");
  SY_TRY(const OpenFile file, source.file(source.names().front()));
  return for_each_document(file, options.line_bytes > 0 ? options.line_bytes : kLongLineCap, [&](const Json& json, const std::string& place, double fraction) -> Result<void> {
    sink.progress(fraction);
    const JsonView document(json, place);
    if (document.has("router_data")) return give_example(document, sink);
    if (document.has("think_expert_analytics")) return give_aggregate(document, options, sink);
    if (document.has("layer_0")) return document.fail("ranks the experts of each layer and counts nothing", "Take *_examples.json or the file with think_expert_analytics.");
    return document.fail("has neither router_data nor think_expert_analytics");
  });
}

}  // namespace switchyard::dumps

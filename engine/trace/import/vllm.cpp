// vLLM: responses with routed experts, an array of them, and the JSONL of a router log (formats.md F3, F11).
#include <algorithm>
#include <map>
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/routes.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {
namespace {

constexpr int64_t kPiece = 16'384;  // tokens of an array that are read at once

// [tokens, MoE layers, k]: lists, or base64 of npy bytes; absent or null: no rows.
Result<Numbers> rows_of(const Json& value, const std::string& where) {
  if (value.is_null()) return Numbers{{0, 0, 0}, {}};
  Numbers out;
  if (value.is_string()) {
    SY_TRY(std::string bytes, base64(value.get_ref<const std::string&>(), where));
    SY_TRY(const DumpTensor array, open_npy(std::make_shared<const std::string>(std::move(bytes)), where));
    SY_TRY(out, array.read_all());
  } else {
    SY_TRY(out, numbers(value, where));
  }
  if (out.values.empty()) return Numbers{{0, 0, 0}, {}};
  if (out.shape.size() != 3) return fail(ErrorCode::kMalformed, "has " + std::to_string(out.shape.size()) + " axes, needs [tokens, MoE layers, k].", where);
  if (std::all_of(out.values.begin(), out.values.end(), [](double id) { return id == 0; }))
    return fail(ErrorCode::kMalformed, "holds nothing but expert 0: the capture was not filled.", where, "vLLM versions before its pull request 49184 answer so on some backends.");
  return out;
}

Result<std::vector<uint32_t>> token_ids_of(const Json& holder, const char* key, const std::string& where) {
  std::vector<uint32_t> out;
  if (!holder.is_object() || !holder.contains(key) || holder[key].is_null()) return out;
  SY_TRY(const Numbers values, numbers(holder[key], where + ": " + key));
  for (const double value : values.values) {
    SY_TRY(const int64_t id, whole(value, 0, INT32_MAX, where + ": " + key));
    out.push_back(uint32_t(id));
  }
  return out;
}

const Json& member(const Json& holder, const char* key) {
  static const Json none;
  return holder.is_object() && holder.contains(key) ? holder[key] : none;
}

// One stretch of a sequence: its rows, its token ids where they are told.
Result<void> give_part(const Numbers& rows, std::vector<uint32_t> ids, uint32_t first, uint8_t phase, const std::string& where, DumpSink& sink) {
  if (rows.shape[0] == 0) return {};
  SY_TRY(DumpTokens piece, tokens_of(rows, 0, 1, 2, where));
  // The last generated token has no row; more rows than tokens cannot be.
  if (!ids.empty()) {
    if (ids.size() < piece.tokens || ids.size() > piece.tokens + 1)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(piece.tokens) + " rows for " + std::to_string(ids.size()) + " tokens.", where);
    ids.resize(piece.tokens);
    piece.token_ids = std::move(ids);
  }
  for (uint32_t t = 0; t < piece.tokens; ++t) {
    piece.positions.push_back(first + t);
    piece.phases.push_back(phase);
  }
  return sink.tokens(piece);
}

Result<void> give_response(const Json& document, const std::string& where, DumpSink& sink) {
  sink.facts.ordinal_layers = true;
  if (document.contains("model") && document["model"].is_string()) sink.facts.model = printable(document["model"].get_ref<const std::string&>(), 200);
  SY_TRY(const Numbers prompt, rows_of(member(document, "prompt_routed_experts"), where + ": prompt_routed_experts"));
  SY_TRY(std::vector<uint32_t> prompt_ids, token_ids_of(document, "prompt_token_ids", where));
  const Json& choices = member(document, "choices");
  const uint32_t prompt_rows = uint32_t(prompt.shape[0]);
  const uint32_t prompt_tokens = prompt_ids.empty() ? prompt_rows : uint32_t(prompt_ids.size());
  const size_t count = choices.is_array() ? choices.size() : 0;
  bool any = prompt_rows > 0;
  if (count > 1) sink.facts.note("of several choices the first holds the rows of the prompt, the others begin behind it");
  for (size_t i = 0; i < std::max<size_t>(count, 1); ++i) {
    static const Json none = Json::object();
    const Json& choice = count == 0 ? none : choices[i];
    const std::string place = where + ", choice " + std::to_string(i);
    SY_TRY(const Numbers generated, rows_of(member(choice, "routed_experts"), place + ": routed_experts"));
    SY_TRY(std::vector<uint32_t> ids, token_ids_of(choice, "token_ids", place));
    SY_CHECK(sink.begin_sequence(i == 0 ? prompt_rows : 0));
    if (i == 0) SY_CHECK(give_part(prompt, std::move(prompt_ids), 0, 0, where + ": prompt_routed_experts", sink));
    SY_CHECK(give_part(generated, std::move(ids), prompt_tokens, 1, place, sink));
    any = any || generated.shape[0] > 0;
  }
  if (any) return {};
  // The first form: one array for prompt and generation.
  SY_TRY(const Numbers whole_sequence, rows_of(member(document, "routed_experts"), where + ": routed_experts"));
  if (whole_sequence.shape[0] == 0)
    return fail(ErrorCode::kMalformed, "has no rows in prompt_routed_experts or routed_experts.", where, "Was the server started with --enable-return-routed-experts?");
  SY_TRY(const DumpTokens piece, tokens_of(whole_sequence, 0, 1, 2, where + ": routed_experts"));
  SY_CHECK(sink.begin_sequence(0));
  return sink.tokens(piece);
}

Result<void> give_array(const DumpTensor& array, DumpSink& sink) {
  sink.facts.ordinal_layers = true;
  if (array.shape.size() != 3) return array.fail("has " + std::to_string(array.shape.size()) + " axes, needs [tokens, MoE layers, k].");
  SY_CHECK(sink.begin_sequence(0));
  sink.facts.note("the array does not say where sequences begin; it is taken as one");
  bool any = false;
  for (int64_t first = 0; first < array.shape[0]; first += kPiece) {
    SY_TRY(const Numbers rows, array.read(first, std::min(kPiece, array.shape[0] - first)));
    any = any || std::any_of(rows.values.begin(), rows.values.end(), [](double id) { return id != 0; });
    SY_TRY(const DumpTokens piece, tokens_of(rows, 0, 1, 2, array.where));
    SY_CHECK(sink.tokens(piece));
    sink.progress(double(first) / double(array.shape[0]));
  }
  if (!any) return array.fail("holds nothing but expert 0: the capture was not filled.");
  return {};
}

bool is_route_log(const std::string& start) { return start.find("\"topk_ids\"") != std::string::npos && start.find("\"route\"") != std::string::npos; }

}  // namespace

bool recognises_vllm(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string start = source.start_of(source.names().front(), 64 << 10);
  return start.find("\"prompt_routed_experts\"") != std::string::npos || start.find("\"routed_experts\"") != std::string::npos || is_route_log(start);
}

Result<void> read_vllm(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; responses and arrays are read from files.", source.shown(), "Name one of its files.");
  const std::string& name = source.names().front();
  SY_TRY(OpenFile opened, source.file(name));
  const auto file = std::make_shared<const OpenFile>(std::move(opened));
  if (name.ends_with(".npy")) {
    SY_TRY(const DumpTensor array, open_npy(file));
    return give_array(array, sink);
  }
  if (is_route_log(source.start_of(name, 64 << 10))) {
    sink.facts.note("the log's token numbers run over the whole log, so positions are counted within each request");
    return read_routes(*file, {"req_id", "token_idx", "layer", "topk_ids", "topk_weights", "model_id"}, options, sink);
  }
  return for_each_document(*file, options.line_bytes > 0 ? options.line_bytes : kLongLineCap, [&](const Json& document, const std::string& place, double fraction) -> Result<void> {
    sink.progress(fraction);
    const auto one = [&](const Json& response, const std::string& where) -> Result<void> {
      if (!response.is_object()) return fail(ErrorCode::kMalformed, "is no object of JSON.", where);
      return give_response(response, where, sink);
    };
    if (!document.is_array()) return one(document, place);
    for (size_t i = 0; i < document.size(); ++i) SY_CHECK(one(document[i], place + ", " + std::to_string(i)));
    return {};
  });
}

}  // namespace switchyard::dumps

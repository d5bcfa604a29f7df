// SGLang: the expert distribution recorder (stat, per_pass, per_token), logical_count JSON, and responses with
// routed_experts (formats.md F1, F2).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <unordered_map>

#include "engine/base/text.h"
#include "engine/trace/import/counting.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/pickle.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

// Where one token of a per_token recording lies.
struct TokenPlace {
  uint32_t record, token;
};

struct Record {
  std::string where;
  uint32_t tokens = 0;
  int width = 0;              // slots a token, 8 whatever k is
  std::vector<ExpertId> ids;  // [layers, tokens, width], logical
  std::vector<uint32_t> token_ids, positions;
  bool prefill = false;
};

// Puts the tokens of forward passes back into sequences. The recorder does not say which request a token is of, but a
// token goes on where a sequence ended: by position, where that leaves one choice.
class Joiner {
 public:
  void add(const std::vector<uint32_t>& positions, uint32_t record, uint32_t first, uint32_t count) {
    const uint32_t position = positions[first];
    auto& waiting = ends_[position];
    size_t sequence = sequences_.size();
    if (position > 0 && waiting.size() == 1) {
      sequence = waiting.front();
      waiting.clear();
    } else {
      if (position > 0 && waiting.size() > 1) ++ambiguous_;
      sequences_.emplace_back();
    }
    for (uint32_t i = 0; i < count; ++i) sequences_[sequence].push_back({record, first + i});
    ends_[positions[first + count - 1] + 1].push_back(sequence);
  }
  const std::vector<std::vector<TokenPlace>>& sequences() const { return sequences_; }
  uint64_t ambiguous() const { return ambiguous_; }

 private:
  std::vector<std::vector<TokenPlace>> sequences_;
  std::unordered_map<uint32_t, std::vector<size_t>> ends_;
  uint64_t ambiguous_ = 0;
};

// [layers, physical] -> logical id; empty: the file has none, ids are logical already.
struct PlacementMap {
  size_t layers = 0, physical = 0;
  std::vector<ExpertId> logical;
  int experts = 0;

  Result<int> of(size_t layer, size_t id, const std::string& where) const {
    if (layer >= layers || id >= physical)
      return fail(ErrorCode::kMalformed, "names physical expert " + std::to_string(id) + " of layer " + std::to_string(layer) + "; the map is [" + std::to_string(layers) + ", " + std::to_string(physical) + "].", where);
    return logical[layer * physical + id];
  }
};

Result<PlacementMap> read_map(const Pickle& pickle, DumpFacts& facts) {
  PlacementMap map;
  const PickleNode* node = pickle.root().find("last_physical_to_logical_map");
  if (node == nullptr || node->is(PickleNode::Kind::kNone)) return map;
  SY_TRY(const Numbers values, pickle.numbers(*node, "\"last_physical_to_logical_map\""));
  if (values.shape.size() != 2) return pickle.fail("\"last_physical_to_logical_map\" has " + std::to_string(values.shape.size()) + " axes, needs [layers, physical experts].");
  map.layers = size_t(values.shape[0]);
  map.physical = size_t(values.shape[1]);
  bool identity = true;
  nlohmann::ordered_json kept = nlohmann::ordered_json::array();
  for (size_t i = 0; i < values.values.size(); ++i) {
    SY_TRY(const int64_t logical, whole(values.values[i], 0, kNoExpert - 1, pickle.where() + ": \"last_physical_to_logical_map\""));
    map.logical.push_back(ExpertId(logical));
    map.experts = std::max(map.experts, int(logical) + 1);
    identity = identity && size_t(logical) == i % map.physical;
    if (i % map.physical == 0) kept.push_back(nlohmann::ordered_json::array());
    kept.back().push_back(logical);
  }
  facts.experts = std::max(facts.experts, map.experts);
  if (!identity) {
    facts.kept["physical_to_logical_map"] = std::move(kept);
    facts.note("physical ids were turned into logical ones by the recording's own map, which is kept in /meta/run");
  }
  return map;
}

Result<Record> read_record(const Pickle& pickle, const PickleNode& node, const PlacementMap& map, size_t index) {
  Record record;
  record.where = pickle.where() + ": record " + std::to_string(index);
  SY_TRY(const Numbers ids, pickle.numbers_at(node, "topk_ids_of_layer"));
  SY_TRY(const Numbers token_ids, pickle.numbers_at(node, "input_ids"));
  SY_TRY(const Numbers positions, pickle.numbers_at(node, "positions"));
  if (ids.shape.size() != 3 || ids.shape[2] < 1 || ids.shape[2] > 64)
    return fail(ErrorCode::kMalformed, "\"topk_ids_of_layer\" has " + std::to_string(ids.shape.size()) + " axes, needs [layers, tokens, slots].", record.where);
  record.tokens = uint32_t(ids.shape[1]);
  record.width = int(ids.shape[2]);
  if (token_ids.values.size() != record.tokens || positions.values.size() != record.tokens) {
    return fail(ErrorCode::kMalformed, "has " + std::to_string(record.tokens) + " tokens, " + std::to_string(token_ids.values.size()) + " input ids and " +
                                           std::to_string(positions.values.size()) + " positions.", record.where);
  }
  for (size_t i = 0; i < record.tokens; ++i) {
    SY_TRY(const int64_t id, whole(token_ids.values[i], 0, INT32_MAX, record.where + ", input_ids"));
    SY_TRY(const int64_t position, whole(positions.values[i], 0, INT32_MAX, record.where + ", positions"));
    record.token_ids.push_back(uint32_t(id));
    record.positions.push_back(uint32_t(position));
  }
  SY_TRY(record.ids, ids_of(ids.values, record.where));
  if (map.logical.empty()) return record;
  for (size_t i = 0; i < record.ids.size(); ++i) {
    if (record.ids[i] == kNoExpert) continue;
    SY_TRY(const int logical, map.of(i / (size_t(record.tokens) * size_t(record.width)), record.ids[i], record.where));
    record.ids[i] = ExpertId(logical);
  }
  return record;
}

Result<void> join_record(const Pickle& pickle, const PickleNode& node, uint32_t index, Record& record, Joiner& joiner) {
  const PickleNode* lengths = node.find("extend_seq_lens");
  record.prefill = lengths != nullptr && !lengths->is(PickleNode::Kind::kNone);
  if (!record.prefill) {
    for (uint32_t token = 0; token < record.tokens; ++token) joiner.add(record.positions, index, token, 1);
    return {};
  }
  SY_TRY(const Numbers each, pickle.numbers(*lengths, "\"extend_seq_lens\""));
  uint32_t first = 0;
  for (const double length : each.values) {
    SY_TRY(const int64_t tokens, whole(length, 0, record.tokens - first, record.where + ", extend_seq_lens"));
    if (tokens > 0) joiner.add(record.positions, index, first, uint32_t(tokens));
    first += uint32_t(tokens);
  }
  if (first != record.tokens)
    return fail(ErrorCode::kMalformed, "has " + std::to_string(record.tokens) + " tokens, its extend_seq_lens have " + std::to_string(first) + ".", record.where);
  return {};
}

Result<void> give_sequence(const std::vector<TokenPlace>& tokens, const std::vector<Record>& records, size_t layers, DumpSink& sink) {
  DumpTokens piece;
  piece.where = records[tokens.front().record].where;
  piece.tokens = uint32_t(tokens.size());
  for (const TokenPlace& at : tokens) piece.slots = std::max(piece.slots, records[at.record].width);
  piece.ids.assign(layers * tokens.size() * size_t(piece.slots), kNoExpert);
  uint32_t prompt = 0;
  for (size_t layer = 0; layer < layers; ++layer) piece.layers.push_back(int(layer));
  for (size_t t = 0; t < tokens.size(); ++t) {
    const Record& record = records[tokens[t].record];
    piece.token_ids.push_back(record.token_ids[tokens[t].token]);
    piece.positions.push_back(record.positions[tokens[t].token]);
    piece.phases.push_back(record.prefill ? 0 : 1);
    prompt += record.prefill;
    for (size_t layer = 0; layer < layers; ++layer)
      std::copy_n(record.ids.begin() + ptrdiff_t((layer * record.tokens + tokens[t].token) * size_t(record.width)), record.width,
                  piece.ids.begin() + ptrdiff_t(piece.at(layer, t)));
  }
  SY_CHECK(sink.begin_sequence(prompt));
  return sink.tokens(piece);
}

Result<void> read_per_token(const Pickle& pickle, const std::vector<PickleNode*>& nodes, DumpSink& sink) {
  SY_TRY(const PlacementMap map, read_map(pickle, sink.facts));
  std::vector<Record> records;
  Joiner joiner;
  size_t layers = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    SY_TRY(Record record, read_record(pickle, *nodes[i], map, i));
    if (record.tokens == 0) continue;
    const size_t of_this = record.ids.size() / (size_t(record.tokens) * size_t(record.width));
    if (layers != 0 && of_this != layers)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(of_this) + " layers, the records before have " + std::to_string(layers) + ".", record.where);
    layers = of_this;
    SY_CHECK(join_record(pickle, *nodes[i], uint32_t(records.size()), record, joiner));
    records.push_back(std::move(record));
  }
  sink.facts.note("requests are not told apart in the recording; sequences are put together by position" +
                  (joiner.ambiguous() == 0 ? std::string() : ", which left " + std::to_string(joiner.ambiguous()) + " pieces with more than one choice: each begins a sequence of its own"));
  for (const auto& sequence : joiner.sequences()) SY_CHECK(give_sequence(sequence, records, layers, sink));
  return {};
}

// Counts by forward pass, over ranks.
struct Passes {
  size_t layers = 0, experts = 0;
  std::map<int64_t, std::vector<uint64_t>> counts;  // [layers, experts] of each pass
};

Result<void> add_per_pass(const Pickle& pickle, const std::vector<PickleNode*>& nodes, DumpFacts& facts, Passes& passes) {
  SY_TRY(const PlacementMap map, read_map(pickle, facts));
  for (size_t i = 0; i < nodes.size(); ++i) {
    const std::string where = pickle.where() + ": record " + std::to_string(i);
    SY_TRY(const Numbers counts, pickle.numbers_at(*nodes[i], "global_physical_count"));
    const PickleNode* id_node = nodes[i]->find("forward_pass_id");
    if (id_node == nullptr) return fail(ErrorCode::kMalformed, "has no \"forward_pass_id\".", where);
    SY_TRY(const int64_t id, pickle.integer(*id_node, "\"forward_pass_id\"", 0, int64_t(1) << 52));
    if (counts.shape.size() != 2) return fail(ErrorCode::kMalformed, "\"global_physical_count\" needs [layers, physical experts].", where);
    const size_t layers = size_t(counts.shape[0]), physical = size_t(counts.shape[1]);
    const size_t experts = map.logical.empty() ? physical : size_t(map.experts);
    if (passes.layers == 0) passes.layers = layers, passes.experts = experts;
    if (layers != passes.layers || experts != passes.experts || experts == 0)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(layers) + " layers and " + std::to_string(experts) + " experts, the records before have " + std::to_string(passes.layers) + " and " + std::to_string(passes.experts) + ".", where);
    auto& pass = passes.counts[id];
    pass.resize(layers * experts);
    if (passes.counts.size() * pass.size() > kMaxValues) return fail(ErrorCode::kMalformed, "holds more passes than fit into memory.", where);
    for (size_t v = 0; v < counts.values.size(); ++v) {
      SY_TRY(const int64_t count, whole(counts.values[v], 0, int64_t(1) << 52, where + ", global_physical_count"));
      size_t logical = v % physical;
      if (!map.logical.empty()) {
        SY_TRY(const int mapped, map.of(v / physical, v % physical, where));
        logical = size_t(mapped);
      }
      pass[v / physical * experts + logical] += uint64_t(count);
    }
  }
  return {};
}

Result<void> give_passes(const Passes& passes, const std::string& where, DumpSink& sink) {
  Numbers all;
  all.shape = {int64_t(passes.counts.size()), int64_t(passes.layers), int64_t(passes.experts)};
  for (const auto& [id, counts] : passes.counts) all.values.insert(all.values.end(), counts.begin(), counts.end());
  return give_counts(all, where, sink);
}

Result<void> read_recordings(const DumpSource& source, DumpSink& sink) {
  Passes passes;
  size_t stats = 0;
  for (const std::string& name : source.names_ending(".pt")) {
    SY_TRY(OpenFile opened, source.file(name));
    SY_TRY(const Pickle pickle, open_pickle(std::make_shared<const OpenFile>(std::move(opened))));
    if (const PickleNode* counts = pickle.root().find("logical_count")) {
      if (++stats > 1) return fail(ErrorCode::kMalformed, "holds more than one stat recording.", source.shown(), "Name one of the files.");
      SY_TRY(const Numbers values, pickle.numbers(*counts, "\"logical_count\""));
      SY_CHECK(give_counts(values, name, sink));
      continue;
    }
    const PickleNode* records = pickle.root().find("records");
    if (records == nullptr || !records->is_sequence()) return pickle.fail("has neither \"logical_count\" nor \"records\": no recording of SGLang.");
    if (records->items.empty()) continue;
    if (records->items.front()->find("topk_ids_of_layer") != nullptr) {
      SY_CHECK(read_per_token(pickle, records->items, sink));
    } else {
      SY_CHECK(add_per_pass(pickle, records->items, sink.facts, passes));
    }
  }
  return passes.counts.empty() ? Result<void>{} : give_passes(passes, source.shown(), sink);
}

// Base64 of little-endian int32 [tokens, layers, k].
Result<void> give_response(const Json& holder, const Json& meta, const std::string& where, const ImportOptions& options, DumpSink& sink) {
  SY_TRY(const std::string bytes, base64(holder["routed_experts"].get_ref<const std::string&>(), where + ", routed_experts"));
  if (options.layers < 1 || options.top_k < 1)
    return fail(ErrorCode::kUsage, "routed_experts has no shape in it.", where, "Give --layers (num_hidden_layers) and --top-k of the model.");
  const size_t per_token = size_t(options.layers) * size_t(options.top_k);
  if (bytes.size() % (4 * per_token) != 0) {
    return fail(ErrorCode::kMalformed, "routed_experts has " + std::to_string(bytes.size()) + " bytes, needs a multiple of 4 x " + std::to_string(options.layers) +
                                           " layers x " + std::to_string(options.top_k) + " slots.", where, "Are --layers and --top-k those of the model?");
  }
  const auto integer = [](const Json& from, const char* key) -> int64_t {
    return from.is_object() && from.contains(key) && from[key].is_number_integer() ? from[key].get<int64_t>() : -1;
  };
  const int64_t start = std::clamp<int64_t>(std::max(integer(holder, "routed_experts_start_len"), integer(meta, "routed_experts_start_len")), 0, INT32_MAX);
  const int64_t prompt = integer(meta, "prompt_tokens"), generated = integer(meta, "completion_tokens");
  DumpTokens piece;
  piece.where = where;
  piece.tokens = uint32_t(bytes.size() / (4 * per_token));
  piece.slots = options.top_k;
  for (int layer = 0; layer < options.layers; ++layer) piece.layers.push_back(layer);
  if (prompt >= 0 && generated >= 0 && start + int64_t(piece.tokens) != prompt + generated - 1)
    sink.facts.note("a response has " + std::to_string(piece.tokens) + " rows for " + std::to_string(prompt) + " + " + std::to_string(generated) + " tokens; one less than the tokens is expected, the last one is not routed");
  for (uint32_t t = 0; t < piece.tokens; ++t) {
    piece.positions.push_back(uint32_t(start) + t);
    if (prompt >= 0) piece.phases.push_back(int64_t(start) + t < prompt ? 0 : 1);
  }
  piece.ids.assign(per_token * piece.tokens, kNoExpert);
  for (size_t layer = 0; layer < size_t(options.layers); ++layer) {
    std::vector<double> values;
    for (size_t t = 0; t < piece.tokens; ++t) {
      for (size_t slot = 0; slot < size_t(piece.slots); ++slot) {
        int32_t id = 0;
        std::memcpy(&id, bytes.data() + 4 * ((t * size_t(options.layers) + layer) * size_t(piece.slots) + slot), 4);
        values.push_back(id);
      }
    }
    // A dense layer is left at zero: expert 0 in every slot of every token.
    if (piece.slots > 1 && std::all_of(values.begin(), values.end(), [](double v) { return v == 0; })) continue;
    SY_TRY(const std::vector<ExpertId> ids, ids_of(values, where + ", layer " + std::to_string(layer)));
    std::copy(ids.begin(), ids.end(), piece.ids.begin() + ptrdiff_t(piece.at(layer, 0)));
  }
  SY_CHECK(sink.begin_sequence(uint32_t(std::clamp<int64_t>(prompt, 0, INT32_MAX))));
  return sink.tokens(piece);
}

Result<void> read_document(const Json& document, const std::string& where, const ImportOptions& options, DumpSink& sink) {
  if (document.is_array()) {
    for (size_t i = 0; i < document.size(); ++i) {
      if (document[i].is_array()) break;
      SY_CHECK(read_document(document[i], where + ", " + std::to_string(i), options, sink));
    }
    return {};
  }
  if (!document.is_object()) return fail(ErrorCode::kMalformed, "is no object of JSON.", where);
  if (document.contains("logical_count")) {
    SY_TRY(const Numbers values, numbers(document["logical_count"], where + ": \"logical_count\""));
    return give_counts(values, where, sink);
  }
  if (document.contains("physical_to_logical_map"))
    return fail(ErrorCode::kMalformed, "is a placement of experts, not a record of routing.", where, "It is what trace export --to sglang-location writes.");
  bool any = false;
  const auto look = [&](const Json& holder) -> Result<void> {
    for (const char* key : {"meta_info", "sgl_ext"}) {
      if (!holder.is_object() || !holder.contains(key)) continue;
      const Json& meta = holder[key];
      if (!meta.is_object() || !meta.contains("routed_experts") || !meta["routed_experts"].is_string()) continue;
      any = true;
      const Json& usage = document.contains("usage") ? document["usage"] : meta;
      SY_CHECK(give_response(meta, meta.contains("prompt_tokens") ? meta : usage, where, options, sink));
    }
    return {};
  };
  SY_CHECK(look(document));
  if (document.contains("choices") && document["choices"].is_array())
    for (const Json& choice : document["choices"]) SY_CHECK(look(choice));
  if (!any) return fail(ErrorCode::kMalformed, "has no \"logical_count\" and no routed_experts in meta_info or sgl_ext.", where);
  return {};
}

}  // namespace

bool recognises_sglang(const DumpSource& source) {
  for (const std::string& name : source.names()) {
    const std::string start = source.start_of(name, 64 << 10);
    const auto holds = [&](std::string_view text) { return start.find(text) != std::string::npos; };
    if (name.ends_with(".pt") && (holds("forward_pass_id") || holds("logical_count"))) return true;
    if (!source.is_folder() && !name.ends_with(".pt") && (holds("\"logical_count\"") || holds("\"sgl_ext\"") || (holds("\"meta_info\"") && holds("\"routed_experts\"")))) return true;
  }
  return false;
}

Result<void> read_sglang(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (!source.names_ending(".pt").empty()) return read_recordings(source, sink);
  if (source.is_folder()) return fail(ErrorCode::kNotFound, "holds no .pt of a recorder.", source.shown());
  SY_TRY(const OpenFile file, source.file(source.names().front()));
  return for_each_document(file, options.line_bytes > 0 ? options.line_bytes : kLongLineCap, [&](const Json& document, const std::string& place, double fraction) {
    sink.progress(fraction);
    return read_document(document, place, options, sink);
  });
}

}  // namespace switchyard::dumps

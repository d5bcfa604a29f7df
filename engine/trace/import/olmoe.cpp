// The OLMoE paper's analysis scripts: JSONL with exp_ids, and pickles of counters (formats.md F12, §5).
#include <map>
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/pickle.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

using Kind = PickleNode::Kind;

Result<void> give_line(const Json& document, const std::string& place, DumpSink& sink) {
  if (!document.is_object() || !document.contains("exp_ids")) return fail(ErrorCode::kMalformed, "has no \"exp_ids\".", place);
  SY_TRY(const Numbers ids, numbers(document["exp_ids"], place + ": exp_ids"));
  // [tokens, k, layers]: k before the layers.
  SY_TRY(DumpTokens piece, tokens_of(ids, 0, 2, 1, place + ": exp_ids"));
  if (document.contains("input_ids")) {
    SY_TRY(const Numbers tokens, numbers(document["input_ids"], place + ": input_ids"));
    if (tokens.values.size() != piece.tokens)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(tokens.values.size()) + " input_ids and exp_ids of " + std::to_string(piece.tokens) + " tokens.", place);
    for (const double value : tokens.values) {
      SY_TRY(const int64_t id, whole(value, 0, INT32_MAX, place + ": input_ids"));
      piece.token_ids.push_back(uint32_t(id));
    }
  }
  piece.phases.assign(piece.tokens, 0);
  SY_CHECK(sink.begin_sequence(piece.tokens));
  return sink.tokens(piece);
}

// {expert: count} or {expert: {token: count}}.
Result<void> add_counter(const Pickle& pickle, const PickleNode& counter, std::map<int, uint64_t>& out) {
  if (!counter.is(Kind::kDict)) return pickle.fail("holds something else than a counter for each layer.");
  for (size_t i = 0; i + 1 < counter.items.size(); i += 2) {
    const PickleNode &key = *counter.items[i], &value = *counter.items[i + 1];
    if (key.is_sequence())
      return pickle.fail("counts pairs of layers, of slots in the same place only, which is not the affinity of specs A10.", "Take the file of the same name in expert_counts.");
    SY_TRY(const int64_t expert, pickle.integer(key, "the number of an expert", 0, kNoExpert - 1));
    if (!value.is(Kind::kDict)) {
      SY_TRY(const int64_t count, pickle.integer(value, "a count", 0, int64_t(1) << 52));
      out[int(expert)] += uint64_t(count);
      continue;
    }
    for (size_t j = 1; j < value.items.size(); j += 2) {
      SY_TRY(const int64_t count, pickle.integer(*value.items[j], "a count", 0, int64_t(1) << 52));
      out[int(expert)] += uint64_t(count);
    }
  }
  return {};
}

Result<void> give_counters(const Pickle& pickle, const ImportOptions& options, DumpSink& sink) {
  const PickleNode& root = pickle.root();
  std::map<int, std::map<int, uint64_t>> layers;
  if (root.is_sequence()) {
    if (root.items.size() > 2048) return pickle.fail("holds " + std::to_string(root.items.size()) + " counters.");
    // The script keeps the first, a middle and the last layer.
    static constexpr int kKept[] = {0, 7, 15};
    const bool three = root.items.size() == 3;
    for (size_t i = 0; i < root.items.size(); ++i) SY_CHECK(add_counter(pickle, *root.items[i], layers[three ? kKept[i] : int(i)]));
    if (three) sink.facts.note("three counters are taken for layers 0, 7 and 15, which the script keeps (--moe-layers says otherwise)");
  } else if (root.is(Kind::kDict)) {
    for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
      if (root.items[i]->is_sequence()) return pickle.fail("counts pairs of layers, of slots in the same place only, which is not the affinity of specs A10.", "Take the file of the same name in expert_counts.");
      SY_TRY(const int64_t layer, pickle.integer(*root.items[i], "the number of a layer", 0, 65'535));
      SY_CHECK(add_counter(pickle, *root.items[i + 1], layers[int(layer)]));
    }
  } else {
    return pickle.fail("holds neither a list nor a dictionary of counters.");
  }
  DumpCounts counts;
  counts.where = pickle.where();
  counts.experts = options.experts;
  for (const auto& [layer, of_layer] : layers) {
    counts.layers.push_back(layer);
    if (!of_layer.empty()) counts.experts = std::max(counts.experts, of_layer.rbegin()->first + 1);
  }
  if (options.experts == 0) sink.facts.note("the number of experts is not in the dump; " + std::to_string(counts.experts) + " is one more than the largest id in it (--experts says it)");
  for (const auto& [layer, of_layer] : layers) {
    std::vector<uint64_t> row(size_t(counts.experts), 0);
    for (const auto& [expert, count] : of_layer) row[size_t(expert)] = count;
    counts.sums.count.insert(counts.sums.count.end(), row.begin(), row.end());
  }
  return sink.counts(counts);
}

}  // namespace

bool recognises_olmoe(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string& name = source.names().front();
  const std::string start = source.start_of(name, 64 << 10);
  return name.ends_with(".pkl") ? start.find("Counter") != std::string::npos
                                : name.find(".jsonl") != std::string::npos && start.find("\"input_ids\"") != std::string::npos && start.find("\"predicted_token_ids\"") != std::string::npos;
}

Result<void> read_olmoe(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder.", source.shown(), "Name one of its files.");
  const std::string& name = source.names().front();
  SY_TRY(OpenFile opened, source.file(name));
  const auto file = std::make_shared<const OpenFile>(std::move(opened));
  if (name.ends_with(".pkl")) {
    SY_TRY(const Pickle pickle, open_pickle(file));
    return give_counters(pickle, options, sink);
  }
  sink.facts.ranked = true;  // the script sorts by falling logit
  sink.facts.ordinal_layers = true;
  return for_each_document(*file, options.line_bytes > 0 ? options.line_bytes : kLongLineCap, [&](const Json& document, const std::string& place, double fraction) {
    sink.progress(fraction);
    return give_line(document, place, sink);
  });
}

}  // namespace switchyard::dumps

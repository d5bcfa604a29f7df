// The state of REAP's observer (formats.md F10): sums by layer and expert, ready for pruning.
#include <map>
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/pickle.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

// One row of E reals, at the end of `out`.
template <class T>
Result<void> add_row(const Pickle& pickle, const PickleNode& layer, const char* key, int experts, const std::string& where, std::vector<T>& out) {
  SY_TRY(const Numbers values, pickle.numbers_at(layer, key));
  if (values.values.size() != size_t(experts))
    return fail(ErrorCode::kMalformed, quote(key) + " has " + std::to_string(values.values.size()) + " values, \"expert_frequency\" has " + std::to_string(experts) + ".", where);
  for (const double value : values.values) out.push_back(T(value));
  return {};
}

}  // namespace

bool recognises_reap(const DumpSource& source) {
  return !source.is_folder() && source.names().front().ends_with(".pt") && source.start_of(source.names().front(), 64 << 10).find("expert_frequency") != std::string::npos;
}

Result<void> read_reap(const DumpSource& source, const ImportOptions&, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; an observer's state is one file.", source.shown());
  SY_TRY(OpenFile opened, source.file(source.names().front()));
  SY_TRY(const Pickle pickle, open_pickle(std::make_shared<const OpenFile>(std::move(opened))));
  const PickleNode& root = pickle.root();
  if (!root.is(PickleNode::Kind::kDict) || root.items.empty()) return pickle.fail("holds no dictionary of layers.");
  std::map<int, const PickleNode*> layers;
  for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
    SY_TRY(const int64_t layer, pickle.integer(*root.items[i], "the number of a layer", 0, 65'535));
    if (layers.size() == 2048) return pickle.fail("holds more than 2,048 layers.");
    layers[int(layer)] = root.items[i + 1];
  }
  DumpCounts counts;
  counts.where = pickle.where();
  bool alike = true;
  uint64_t choices = 0;
  for (const auto& [layer, state] : layers) {
    const std::string where = pickle.where() + ": layer " + std::to_string(layer);
    SY_TRY(const Numbers frequency, pickle.numbers_at(*state, "expert_frequency"));
    SY_TRY(const Numbers total, pickle.numbers_at(*state, "total_tokens"));
    if (frequency.values.empty() || frequency.values.size() > 65'535 || total.values.size() != 1)
      return fail(ErrorCode::kMalformed, "has " + std::to_string(frequency.values.size()) + " experts and " + std::to_string(total.values.size()) + " totals.", where);
    const int experts = int(frequency.values.size());
    if (counts.experts == 0) counts.experts = experts;
    if (counts.experts != experts) return fail(ErrorCode::kMalformed, "has " + std::to_string(experts) + " experts, the layers before have " + std::to_string(counts.experts) + ".", where);
    SY_TRY(const int64_t tokens, whole(total.values[0], 0, int64_t(1) << 52, where + ", total_tokens"));
    uint64_t sum = 0;
    for (const double value : frequency.values) {
      SY_TRY(const int64_t count, whole(value, 0, int64_t(1) << 52, where + ", expert_frequency"));
      counts.sums.count.push_back(uint64_t(count));
      sum += uint64_t(count);
    }
    alike = alike && (counts.layers.empty() || (counts.tokens == uint64_t(tokens) && choices == sum));
    counts.tokens = uint64_t(tokens);
    choices = sum;
    counts.layers.push_back(layer);
    SY_CHECK(add_row(pickle, *state, "weighted_expert_frequency_sum", experts, where, counts.sums.weight_sum));
    SY_CHECK(add_row(pickle, *state, "ean_sum", experts, where, counts.sums.ean_sum));
    SY_CHECK(add_row(pickle, *state, "weighted_ean_sum", experts, where, counts.sums.reap_sum));
    SY_CHECK(add_row(pickle, *state, "max_activations", experts, where, counts.sums.max_act));
  }
  if (alike && counts.tokens > 0 && choices % counts.tokens == 0) counts.top_k = int(choices / counts.tokens);
  if (counts.top_k == 0 || counts.top_k > counts.experts) counts.top_k = 0, counts.tokens = 0;
  sink.facts.note("pairwise_expert_frequency is the sum of two frequencies, not a count of pairs: it is not taken for co-activation");
  return sink.counts(counts);
}

}  // namespace switchyard::dumps

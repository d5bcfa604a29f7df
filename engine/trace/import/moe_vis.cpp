// moe-vis: JSONL of a patched llama.cpp, and the sums of its harness (formats.md F11).
#include <algorithm>
#include <map>
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"
#include "engine/trace/import/zip.h"

namespace switchyard::dumps {
namespace {

constexpr uint64_t kMaxArray = 256 << 20;

// What one forward pass wrote, layer by layer.
class Forward {
 public:
  explicit Forward(DumpSink& sink) : sink_(sink) {}

  Result<void> add(const Json& record, const std::string& place) {
    if (!record.is_object()) return fail(ErrorCode::kMalformed, "is no object of JSON.", place);
    const bool weights = record.contains("wlayer");
    const char* key = weights ? "wlayer" : "layer";
    if (!record.contains(key) || !record[key].is_number_integer()) return fail(ErrorCode::kMalformed, "has no whole number \"layer\" or \"wlayer\".", place);
    const auto layer = record[key].get<int64_t>();
    if (layer < 0 || layer > 65'535) return fail(ErrorCode::kMalformed, "names layer " + std::to_string(layer) + ".", place);
    // gate, up and down of a layer write the same ids: one of them counts.
    if (!weights && record.contains("name") && record["name"].is_string() && record["name"].get_ref<const std::string&>().find("down") == std::string::npos) return {};
    const char* list = weights ? "weights" : "experts";
    if (!record.contains(list)) return fail(ErrorCode::kMalformed, "has no " + quote(list) + ".", place);
    SY_TRY(Numbers values, numbers(record[list], place + ": " + list));
    if (values.shape.size() != 2 || values.shape[1] > 4096) return fail(ErrorCode::kMalformed, quote(list) + " needs a list for each token.", place);
    auto& half = weights ? weights_ : ids_;
    if (half.contains(int(layer))) SY_CHECK(give());
    place_ = place;
    half.emplace(int(layer), std::move(values));
    return {};
  }

  Result<void> give() {
    if (ids_.empty()) {
      if (weights_.empty()) return {};
      return fail(ErrorCode::kMalformed, "has weights of a pass without its experts.", place_);
    }
    DumpTokens piece;
    piece.where = place_;
    piece.tokens = uint32_t(ids_.begin()->second.shape[0]);
    piece.slots = int(ids_.begin()->second.shape[1]);
    const bool weighted = weights_.size() == ids_.size();
    for (const auto& [layer, ids] : ids_) {
      if (ids.shape != ids_.begin()->second.shape)
        return fail(ErrorCode::kMalformed, "has " + std::to_string(ids.shape[0]) + " tokens in layer " + std::to_string(layer) + ", the layers before have " + std::to_string(piece.tokens) + ".", place_);
      piece.layers.push_back(layer);
      SY_TRY(const std::vector<ExpertId> row, ids_of(ids.values, place_));
      piece.ids.insert(piece.ids.end(), row.begin(), row.end());
      const auto weights = weights_.find(layer);
      if (!weighted) continue;
      if (weights == weights_.end() || weights->second.shape != ids.shape) return fail(ErrorCode::kMalformed, "has no weights, or others than its experts, in layer " + std::to_string(layer) + ".", place_);
      piece.weights.insert(piece.weights.end(), weights->second.values.begin(), weights->second.values.end());
    }
    ids_.clear();
    weights_.clear();
    sink_.facts.note("requests are not told apart in the trace; a pass of more than one token begins a sequence, single tokens go on with it");
    const bool prompt = piece.tokens > 1;
    if (prompt) SY_CHECK(sink_.begin_sequence(piece.tokens));
    piece.phases.assign(piece.tokens, prompt ? 0 : 1);
    return sink_.tokens(piece);
  }

 private:
  DumpSink& sink_;
  std::string place_;
  std::map<int, Numbers> ids_, weights_;
};

// counts_pre, counts_gen [requests, layers, experts] and the sums of weights beside them.
Result<void> read_npz(const OpenFile& file, DumpSink& sink) {
  SY_TRY(const std::vector<ZipEntry> entries, read_zip(file));
  std::map<std::string, Numbers> arrays;
  DumpCounts counts;
  counts.where = file.name();
  for (const ZipEntry& entry : entries) {
    const std::string name = entry.name.substr(0, entry.name.rfind(".npy")), where = file.name() + ": " + quote(name);
    if (name == "model") {
      SY_TRY(const std::string bytes, read_entry(file, entry, 1 << 20));
      SY_TRY(const auto texts, npy_strings(bytes, where));
      if (texts.size() == 1) sink.facts.model = texts[0];
    }
    if (name != "counts_pre" && name != "counts_gen" && name != "wsum_pre" && name != "wsum_gen" && name != "n_used") continue;
    SY_TRY(std::string bytes, read_entry(file, entry, kMaxArray));
    SY_TRY(const DumpTensor array, open_npy(std::make_shared<const std::string>(std::move(bytes)), where));
    SY_TRY(arrays[name], array.read_all());
  }
  for (const char* name : {"counts_pre", "counts_gen"})
    if (!arrays.contains(name)) return fail(ErrorCode::kMalformed, "has no array " + quote(name) + ".", file.name());
  const auto& shape = arrays["counts_pre"].shape;
  if (shape.size() != 3 || shape[1] < 1 || shape[2] < 1 || shape[1] > 2048 || shape[2] > 65'535)
    return fail(ErrorCode::kMalformed, "\"counts_pre\" has " + std::to_string(shape.size()) + " axes, needs [requests, layers, experts].", file.name());
  const size_t one = size_t(shape[1]) * size_t(shape[2]);
  counts.experts = int(shape[2]);
  for (int64_t layer = 0; layer < shape[1]; ++layer) counts.layers.push_back(int(layer));
  counts.sums.count.resize(one);
  for (const char* name : {"counts_pre", "counts_gen", "wsum_pre", "wsum_gen"}) {
    const auto found = arrays.find(name);
    if (found == arrays.end()) continue;
    if (found->second.shape != shape) return fail(ErrorCode::kMalformed, quote(name) + " has another shape than \"counts_pre\".", file.name());
    const bool weights = name[0] == 'w';
    if (weights) counts.sums.weight_sum.resize(one);
    for (size_t i = 0; i < found->second.values.size(); ++i) {
      if (weights) {
        counts.sums.weight_sum[i % one] += found->second.values[i];
        continue;
      }
      SY_TRY(const int64_t count, whole(found->second.values[i], 0, UINT32_MAX, file.name() + ": " + quote(name)));
      counts.sums.count[i % one] += uint64_t(count);
    }
  }
  if (const auto used = arrays.find("n_used"); used != arrays.end() && used->second.values.size() == 1) {
    SY_TRY(const int64_t k, whole(used->second.values[0], 1, counts.experts, file.name() + ": \"n_used\""));
    counts.top_k = int(k);
  }
  sink.facts.note(std::to_string(shape[0]) + " requests and both phases are added up");
  return sink.counts(counts);
}

}  // namespace

bool recognises_moe_vis(const DumpSource& source) {
  if (source.is_folder()) return false;
  const std::string& name = source.names().front();
  const std::string start = source.start_of(name, 4096);
  if (name.ends_with(".csv")) return start.find("category,") == 0 || start.find("ablated,") == 0;
  if (name.ends_with(".npz")) return start.find("counts_") != std::string::npos;
  return start.find("\"wlayer\"") != std::string::npos || (start.find("{\"layer\"") == 0 && start.find("\"experts\":[[") != std::string::npos);
}

Result<void> read_moe_vis(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder.", source.shown(), "Name one of its files.");
  const std::string& name = source.names().front();
  SY_TRY(const OpenFile file, source.file(name));
  if (name.ends_with(".npz")) return read_npz(file, sink);
  if (name.ends_with(".csv")) {
    const std::string start = source.start_of(name, 256);
    const std::string what = start.find("ablated,") == 0 ? "what the ablation of a category costs the others" : start.find("log2_ratio") != std::string::npos ? "the most specialised experts of each category, as shares" : "shares by category, with the layers added together";
    return fail(ErrorCode::kMalformed, "holds " + what + ": no routing, and no counts by layer.", name, "Take activations.npz or the JSONL trace that it was made from.");
  }
  Forward forward(sink);
  SY_CHECK(for_each_line(file, options.line_bytes > 0 ? options.line_bytes : kLineCap,
                         [&](const Json& record, const std::string& place, double fraction, uint64_t) -> Result<void> {
                           SY_CHECK(forward.add(record, place));
                           sink.progress(fraction);
                           return {};
                         }));
  return forward.give();
}

}  // namespace switchyard::dumps

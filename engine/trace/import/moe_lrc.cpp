// moe-lrc: router logits, ranks or chosen experts, one file a layer (formats.md F9).
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>

#include "engine/base/text.h"
#include "engine/model/tensor_info.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/pickle.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {
namespace {

struct Stem {
  int layer = 0;
  std::string data;  // data set or part, what follows the layer
};

// "{model}_{layer:02d}.{n}.pt", "{model}_{layer:02d}_{data}.pt", "{model}_{layer:02d}.safetensors"
std::optional<Stem> stem_of(std::string_view name) {
  for (const std::string_view end : {".pt", ".safetensors"})
    if (name.ends_with(end)) {
      name.remove_suffix(end.size());
      for (size_t at = name.find('_'); at != std::string_view::npos; at = name.find('_', at + 1)) {
        const size_t stop = std::min(name.find_first_not_of("0123456789", at + 1), name.size());
        if (stop - at - 1 < 2 || (stop < name.size() && name[stop] != '.' && name[stop] != '_')) continue;
        const auto layer = whole_text(name.substr(at + 1, stop - at - 1));
        if (!layer || *layer > 65'535) return std::nullopt;
        return Stem{int(*layer), std::string(name.substr(std::min(stop + 1, name.size())))};
      }
    }
  return std::nullopt;
}

using Layers = std::map<int, std::map<std::string, DumpTensor>>;

Result<Layers> open_layers(const DumpSource& source) {
  Layers layers;
  const auto add = [&](int layer, const std::string& key, DumpTensor tensor) -> Result<void> {
    if (tensor.shape.size() == 2) {  // one sample
      tensor.shape.insert(tensor.shape.begin(), 1);
      tensor.strides.insert(tensor.strides.begin(), 0);
    }
    if (tensor.shape.size() != 3 || tensor.shape[2] < 1 || tensor.shape[2] > 65'535) return tensor.fail("has shape " + shape_text(tensor.shape) + ", needs [samples, tokens, experts].");
    const std::string where = tensor.where;
    if (!layers[layer].emplace(key, std::move(tensor)).second) return fail(ErrorCode::kMalformed, "is there twice for layer " + std::to_string(layer) + ".", where);
    return {};
  };
  for (const std::string& name : source.names()) {
    const auto stem = stem_of(name);
    if (!stem) continue;
    SY_TRY(OpenFile opened, source.file(name));
    const auto file = std::make_shared<const OpenFile>(std::move(opened));
    if (name.ends_with(".safetensors")) {
      SY_TRY(auto tensors, open_safetensors(file));
      for (auto& [key, tensor] : tensors) SY_CHECK(add(stem->layer, key, std::move(tensor)));
      continue;
    }
    SY_TRY(const Pickle pickle, open_pickle(file));
    if (!pickle.root().is(PickleNode::Kind::kTensor)) return pickle.fail("holds something else than one tensor.");
    DumpTensor tensor = *pickle.root().tensor;
    tensor.where = name;
    SY_CHECK(add(stem->layer, stem->data, std::move(tensor)));
  }
  if (layers.empty()) return fail(ErrorCode::kNotFound, "holds no {model}_{layer}.pt or .safetensors.", source.shown());
  const auto& first = layers.begin()->second;
  for (const auto& [layer, tensors] : layers) {
    for (const auto& [key, tensor] : tensors) {
      const auto other = first.find(key);
      if (tensors.size() != first.size() || other == first.end() || other->second.shape != tensor.shape || other->second.dtype != tensor.dtype)
        return tensor.fail("of layer " + std::to_string(layer) + " has another shape than that of layer " + std::to_string(layers.begin()->first) + ", or is not there.");
    }
  }
  return layers;
}

bool is_real(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32 || dtype == DType::kF64; }

// Whether whole numbers are ranks of all experts: the first row is a permutation of them.
Result<bool> are_ranks(const DumpTensor& tensor) {
  if (tensor.count() == 0) return false;
  SY_TRY(const Numbers sample, tensor.read(0, 1));
  std::vector<double> row(sample.values.begin(), sample.values.begin() + ptrdiff_t(sample.shape[2]));
  std::sort(row.begin(), row.end());
  for (size_t i = 0; i < row.size(); ++i)
    if (row[i] != double(i)) return false;
  return row.size() > 1;
}

enum class Kind { kLogits, kRanks, kChosen };

// One sample of one layer, appended to the piece.
Result<void> add_rows(const Numbers& rows, Kind kind, int k, const ImportOptions& options, DumpTokens& piece) {
  const size_t width = size_t(rows.shape[2]);
  std::vector<int> order(width);
  for (size_t at = 0; at < rows.values.size(); at += width) {
    const double* row = rows.values.data() + at;
    if (kind == Kind::kChosen) {
      SY_TRY(const std::vector<ExpertId> ids, ids_of({row, row + width}, piece.where));
      piece.ids.insert(piece.ids.end(), ids.begin(), ids.end());
      continue;
    }
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int a, int b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    for (int slot = 0; slot < k; ++slot) piece.ids.push_back(ExpertId(order[size_t(slot)]));
    if (kind == Kind::kRanks) {
      for (size_t e = 0; e < width; ++e)
        if (row[e] < 0) return fail(ErrorCode::kMalformed, "holds a negative rank: its int8 cannot count more than 128 experts.", piece.where);
      continue;
    }
    for (size_t e = 0; e < width; ++e)
      piece.logits.push_back(float(options.router_output == ImportOptions::RouterOutput::kProbabilities ? std::log(std::max(row[e], 1e-30)) : row[e]));
  }
  return {};
}

}  // namespace

bool recognises_moe_lrc(const DumpSource& source) {
  return source.is_folder() && std::count_if(source.names().begin(), source.names().end(), [](const std::string& name) { return stem_of(name).has_value(); }) >= 1;
}

Result<void> read_moe_lrc(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  SY_TRY(const Layers layers, open_layers(source));
  sink.facts.ordinal_layers = true;
  size_t done = 0;
  for (const auto& [key, shape] : layers.begin()->second) {
    const bool real = is_real(shape.dtype);
    SY_TRY(const bool ranks, real ? Result<bool>(false) : are_ranks(shape));
    const Kind kind = real ? Kind::kLogits : ranks ? Kind::kRanks : Kind::kChosen;
    const int experts = int(shape.shape[2]);
    if (kind != Kind::kChosen && (options.top_k < 1 || options.top_k > experts))
      return fail(ErrorCode::kUsage, "does not say how many of its " + std::to_string(experts) + " experts a token has.", shape.where, "Give --top-k of the model.");
    if (kind == Kind::kRanks) sink.facts.experts = experts;
    if (kind != Kind::kLogits) sink.facts.ranked = kind == Kind::kRanks;
    if (kind == Kind::kLogits) sink.facts.note("the experts of a token are those of the k largest logits; a selection bias or groups of the model are not known");
    for (int64_t sample = 0; sample < shape.shape[0]; ++sample) {
      DumpTokens piece;
      piece.where = shape.where + ", sample " + std::to_string(sample);
      piece.tokens = uint32_t(shape.shape[1]);
      piece.slots = kind == Kind::kChosen ? experts : options.top_k;
      piece.logit_experts = kind == Kind::kLogits ? experts : 0;
      for (const auto& [layer, tensors] : layers) {
        SY_TRY(const Numbers rows, tensors.at(key).read(sample, 1));
        piece.layers.push_back(layer);
        SY_CHECK(add_rows(rows, kind, piece.slots, options, piece));
      }
      piece.phases.assign(piece.tokens, 0);
      SY_CHECK(sink.begin_sequence(piece.tokens, key));
      SY_CHECK(sink.tokens(piece));
      sink.progress((double(done) + double(sample) / double(shape.shape[0])) / double(layers.begin()->second.size()));
    }
    ++done;
  }
  return {};
}

}  // namespace switchyard::dumps

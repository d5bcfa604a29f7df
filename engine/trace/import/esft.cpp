// ESFT text logs: a folder of expert_weights_{L}.txt, one line a forward pass. Rules: specs/cli-json.md, trace import.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

constexpr int kExperts = 64, kTopK = 6;  // of DeepSeek-V2-Lite, whose logs these are

std::optional<int> layer_of(std::string_view name) {
  if (name.ends_with(".gz")) name.remove_suffix(3);
  if (!name.ends_with(".txt")) return std::nullopt;
  name.remove_suffix(4);
  return number_after(name, "expert_weights_");
}

Result<std::map<int, std::string>> layer_files(const DumpSource& source) {
  std::map<int, std::string> files;
  for (const std::string& name : source.names()) {
    const auto layer = layer_of(name);
    if (!layer) continue;
    if (!files.emplace(*layer, name).second)
      return fail(ErrorCode::kMalformed, "has layer " + std::to_string(*layer) + " twice: " + files[*layer] + " and " + name + ".", source.shown());
  }
  if (files.empty()) return fail(ErrorCode::kNotFound, "holds no expert_weights_{L}.txt, plain or .gz.", source.shown());
  return files;
}

// Values between single tabs.
template <class T, class Check>
Result<void> split(std::string_view text, std::vector<T>& out, const std::string& where, const Check& good) {
  out.clear();
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\t', at), text.size());
    T value{};
    const auto [stop, problem] = std::from_chars(text.data() + at, text.data() + end, value);
    if (problem != std::errc() || stop != text.data() + end || !good(value))
      return fail(ErrorCode::kMalformed, "value " + std::to_string(out.size() + 1) + " is " + quote(text.substr(at, end - at), 40) + ", which is not a number.", where);
    out.push_back(value);
    at = end + 1;
  }
  return {};
}

// One layer's file, a line at a time.
class Layer {
 public:
  Layer(OpenFile file, uint64_t cap) : file_(std::move(file)), lines_(file_, cap) {}

  const std::string& name() const { return file_.name(); }
  std::string place() const { return lines_.place(); }
  double fraction() const { return lines_.fraction(); }
  const std::vector<int>& ids() const { return ids_; }
  const std::vector<double>& weights() const { return weights_; }

  Result<bool> next(int experts, int k) {
    SY_TRY(const bool more, lines_.next(line_));
    if (!more) return false;
    const auto refuse = [&](const std::string& what) { return fail(ErrorCode::kMalformed, what, place()); };
    const size_t middle = line_.find("\t\t");
    if (middle == std::string::npos) return refuse("has no double tab between ids and weights.");
    SY_CHECK(split(std::string_view(line_).substr(0, middle), ids_, place(), [](int) { return true; }));
    SY_CHECK(split(std::string_view(line_).substr(middle + 2), weights_, place(), [](double w) { return std::isfinite(w); }));
    if (ids_.size() != weights_.size())
      return refuse("has " + std::to_string(ids_.size()) + " ids and " + std::to_string(weights_.size()) + " weights.");
    if (ids_.size() % size_t(k) != 0)
      return refuse("has " + std::to_string(ids_.size()) + " ids, which is not a multiple of k = " + std::to_string(k) + " (--top-k).");
    for (size_t i = 0; i < ids_.size(); ++i) {
      if (ids_[i] < 0 || ids_[i] >= experts)
        return refuse("names expert " + std::to_string(ids_[i]) + ", needs 0 to " + std::to_string(experts - 1) + " (--experts).");
      for (size_t j = i - i % size_t(k); j < i; ++j)
        if (ids_[j] == ids_[i]) return refuse("names expert " + std::to_string(ids_[i]) + " twice in token " + std::to_string(i / size_t(k)) + ".");
    }
    return true;
  }

 private:
  OpenFile file_;
  LineReader lines_;
  std::string line_;
  std::vector<int> ids_;
  std::vector<double> weights_;
};

}  // namespace

bool recognises_esft(const DumpSource& source) {
  return source.is_folder() && std::any_of(source.names().begin(), source.names().end(), [](const std::string& name) { return layer_of(name).has_value(); });
}

Result<void> read_esft(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  const int experts = options.experts > 0 ? options.experts : kExperts, k = options.top_k > 0 ? options.top_k : kTopK;
  if (k > experts) return fail(ErrorCode::kUsage, "--top-k " + std::to_string(k) + " of " + std::to_string(experts) + " experts cannot be chosen.");
  sink.facts.experts = experts;
  if (options.experts == 0 || options.top_k == 0)
    sink.facts.note("E and k are not in the files; " + std::to_string(experts) + " and " + std::to_string(k) + " are taken (--experts, --top-k)");
  SY_TRY(const auto files, layer_files(source));
  std::vector<std::unique_ptr<Layer>> layers;
  DumpTokens piece;
  piece.slots = k;
  for (const auto& [number, name] : files) {
    SY_TRY(OpenFile file, source.file(name));
    layers.push_back(std::make_unique<Layer>(std::move(file), options.line_bytes > 0 ? options.line_bytes : kLongLineCap));
    piece.layers.push_back(number);
  }
  for (;;) {
    piece.ids.clear();
    piece.weights.clear();
    size_t ended = 0;
    for (const auto& layer : layers) {
      SY_TRY(const bool more, layer->next(experts, k));
      const Layer& first = *layers.front();
      if (!more) {
        if (layer.get() != &first && ended == 0)
          return fail(ErrorCode::kMalformed, "ends after this line; " + first.name() + " goes on.", layer->place());
        ++ended;
        continue;
      }
      if (ended > 0) return fail(ErrorCode::kMalformed, "has a line that " + first.name() + " has not.", layer->place());
      if (layer->ids().size() != first.ids().size()) {
        return fail(ErrorCode::kMalformed, "has " + std::to_string(layer->ids().size() / size_t(k)) + " tokens, the line has " +
                                               std::to_string(first.ids().size() / size_t(k)) + " in " + first.name() + ".", layer->place());
      }
      for (const int id : layer->ids()) piece.ids.push_back(ExpertId(id));
      piece.weights.insert(piece.weights.end(), layer->weights().begin(), layer->weights().end());
    }
    if (ended > 0) return {};
    piece.tokens = uint32_t(layers.front()->ids().size() / size_t(k));
    piece.where = layers.front()->place();
    SY_CHECK(sink.begin_sequence(0));
    SY_CHECK(sink.tokens(piece));
    sink.progress(layers.front()->fraction());
  }
}

}  // namespace switchyard::dumps

// What the analyses of the registry share: JSON of lists and matrices, and the object for each row. Inside engine/analysis.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/analysis/analysis.h"

namespace switchyard::analysis {

using Document = nlohmann::ordered_json;
using Made = Result<std::unique_ptr<Analysis>>;

template <class T>
Document list(std::span<const T> values) {
  Document out = Document::array();
  for (const T value : values) {
    if constexpr (std::is_floating_point_v<T>) out.push_back(std::isfinite(value) ? Document(value) : Document());
    else out.push_back(value);
  }
  return out;
}
template <class T>
Document list(const std::vector<T>& values) { return list(std::span<const T>(values)); }

inline Document matrix(std::span<const double> values, int columns) {
  Document out = Document::array();
  for (size_t first = 0; first < values.size(); first += size_t(columns)) out.push_back(list(values.subspan(first, size_t(columns))));
  return out;
}

inline Document number(const std::optional<double>& value) { return value ? Document(*value) : Document(); }

// What every analysis of a shape shares.
class ShapedAnalysis : public Analysis {
 public:
  explicit ShapedAnalysis(const TraceShape& shape) : shape_(shape) {}

 protected:
  // {"layer": 3}, and which router where a layer has several.
  Document row(int row) const {
    Document out = {{"layer", shape_.layers[row]}};
    const bool several = (row > 0 && shape_.layers[row - 1] == shape_.layers[row]) ||
                         (row + 1 < shape_.rows && shape_.layers[row + 1] == shape_.layers[row]);
    if (several && size_t(row) < shape_.row_names.size()) out["router"] = shape_.row_names[row];
    return out;
  }
  template <class Fill>
  Document layers(Fill&& fill) const {
    Document out = Document::array();
    for (int r = 0; r < shape_.rows; ++r) {
      Document one = row(r);
      fill(r, one);
      out.push_back(std::move(one));
    }
    return out;
  }
  const TraceShape shape_;
};

template <class T>
Made plain(const TraceShape& shape, const AnalysisOptions&) { return std::make_unique<T>(shape); }
template <class T>
Made with_options(const TraceShape& shape, const AnalysisOptions& options) { return std::make_unique<T>(shape, options); }
inline tl::unexpected<Error> usage(std::string what, std::string hint = {}) { return fail(ErrorCode::kUsage, std::move(what), "", std::move(hint)); }
// Falling count, then i, then j.
Document pairs_json(std::span<const uint64_t> counts, int experts, int top);

// Datasets by their short names.
inline constexpr const char *kIds = "/routing/expert_id", *kWeights = "/routing/weight", *kLogits = "/routing/router_logits", *kDomain = "/sequences/domain";

// The parts of the list, in the order it is shown.
std::vector<AnalysisInfo> load_analyses();      // how often, how sharply and for which tokens experts are chosen
std::vector<AnalysisInfo> sequence_analyses();  // from token to token and from layer to layer
std::vector<AnalysisInfo> choice_analyses();    // which experts to keep, prune, tune or compare

}  // namespace switchyard::analysis

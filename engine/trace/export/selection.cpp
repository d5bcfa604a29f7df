// Which experts matter: ESFT's configuration, and REAP's saliencies.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "engine/analysis/esft.h"
#include "engine/base/text.h"
#include "engine/trace/export/torch_file.h"
#include "engine/trace/export/writers.h"
#include "engine/trace/walk.h"

namespace switchyard::exports {

using Json = nlohmann::ordered_json;

Result<void> write_esft(Job& job) {
  const ExportOptions& options = job.request.options;
  SY_CHECK(job.need("/routing/expert_id"));
  SY_CHECK(need_one_row(job.info()));
  if (options.score == "gate") SY_CHECK(job.need("/routing/weight"));
  const TraceInfo info = job.info();
  std::vector<std::unique_ptr<TraceReader>> traces;
  traces.push_back(std::move(job.trace));
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(traces)));
  walk.carry({"/routing/weight"});
  EsftScores scores(info.layers, info.experts);
  SY_CHECK(walk.run([&](const RoutingSlab& slab) -> Result<void> {
    for (int row = 0; row < info.layers; ++row) SY_CHECK(scores.feed(slab, row));
    return {};
  }, job.task));
  Json experts = Json::object();
  for (int row = 0; row < info.layers; ++row)
    experts[std::to_string(info.moe_layers[size_t(row)])] = esft_set(options.score == "gate" ? scores.gate_scores(row) : scores.token_scores(row, info.top_k), options.threshold, options.decimals);
  SY_CHECK(job.files.begin());
  return job.files.write(Json{{"experts", experts}, {"shared_experts", false}, {"non_expert_modules", false}}.dump() + "\n");
}

// The observer's state, as far as the trace has it: counts always, weights where they are recorded, norms where they were
// summed. .pt: the dictionary of tensors that pruning scripts read.
Result<void> write_reap(Job& job) {
  SY_CHECK(need_one_row(job.info()));
  SY_TRY(const Sums sums, sums_of(job));
  const TraceInfo& info = job.info();
  const TraceCounts& counts = sums.counts;
  const size_t experts = size_t(info.experts);
  if (counts.reap_sum.empty()) job.notes.push_back("reap and ean_mean are left out: the trace has no norms of the experts' output (--taps out_norm)");
  TorchDict state;
  Json layers = Json::object();
  for (size_t row = 0; row < size_t(info.layers); ++row) {
    const auto of = [&](const std::vector<double>& all) { return std::vector<double>(all.begin() + ptrdiff_t(row * experts), all.begin() + ptrdiff_t((row + 1) * experts)); };
    const std::vector<int64_t> frequency(counts.count.begin() + ptrdiff_t(row * experts), counts.count.begin() + ptrdiff_t((row + 1) * experts));
    const auto mean = [&](const std::vector<double>& all) {
      std::vector<double> out = of(all);
      for (size_t e = 0; e < experts; ++e) out[e] = frequency[e] == 0 ? 0 : out[e] / double(frequency[e]);
      return out;
    };
    auto dict = std::make_shared<TorchDict>();
    Json layer = Json::object();
    const auto whole = [&](const char* key, std::vector<int64_t> shape, std::vector<int64_t> values) {
      if (shape.empty()) layer[key] = values[0];
      else layer[key] = values;
      dict->items.emplace_back(std::string(key), TorchTensor{std::move(shape), std::move(values)});
    };
    const auto real = [&](const char* key, std::vector<double> values) {
      layer[key] = values;
      dict->items.emplace_back(std::string(key), TorchTensor{{int64_t(experts)}, std::move(values)});
    };
    if (info.tokens > 0) whole("total_tokens", {}, {int64_t(info.tokens)});
    whole("expert_frequency", {int64_t(experts)}, frequency);
    if (!counts.weight_sum.empty()) real("weighted_expert_frequency_sum", of(counts.weight_sum));
    if (!counts.ean_sum.empty()) real("ean_sum", of(counts.ean_sum)), real("ean_mean", mean(counts.ean_sum));
    if (!counts.reap_sum.empty()) real("weighted_ean_sum", of(counts.reap_sum)), real("reap", mean(counts.reap_sum));
    if (!counts.max_act.empty()) real("max_activations", std::vector<double>(counts.max_act.begin() + ptrdiff_t(row * experts), counts.max_act.begin() + ptrdiff_t((row + 1) * experts)));
    state.items.emplace_back(int64_t(info.moe_layers[row]), dict);
    layers[std::to_string(info.moe_layers[row])] = std::move(layer);
  }
  SY_CHECK(job.files.begin());
  if (job.request.target.extension() == ".pt") return job.files.write(torch_file(state, "archive"));
  return job.files.write(layers.dump() + "\n");
}

}  // namespace switchyard::exports

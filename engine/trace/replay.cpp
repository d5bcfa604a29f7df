// See replay.h.
#include "engine/trace/replay.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/json.h"
#include "engine/routing/scheme_file.h"
#include "engine/trace/trace.h"

namespace switchyard {
namespace {

bool has(const TraceInfo& info, const char* field) {
  return std::find(info.fields.begin(), info.fields.end(), field) != info.fields.end();
}

// Tokens [first, first + count) of a sequence that begins at its own token 0.
struct Stretch {
  uint64_t first = 0, count = 0;
};

Result<Stretch> stretch_of(const TraceReader& trace, int sequence) {
  const std::string file = trace.info().path.string();
  SY_TRY(const auto offsets, trace.sequence_offsets());
  const auto sequences = int64_t(offsets.size()) - 1;
  if (sequence < 0 || sequence >= sequences)
    return fail(ErrorCode::kUsage, fmt::format("there is no sequence {}; the trace has {}.", sequence, std::max<int64_t>(0, sequences)), file);
  const auto first = uint64_t(offsets[size_t(sequence)]), end = std::min(uint64_t(offsets[size_t(sequence) + 1]), trace.info().tokens);
  if (end <= first) return fail(ErrorCode::kUsage, fmt::format("sequence {} has no tokens.", sequence), file);
  SY_TRY(const auto positions, trace.token_column("position", first, 1));
  if (positions[0] != 0)
    return fail(ErrorCode::kUsage, fmt::format("sequence {} goes on from another at position {}; it cannot be replayed alone.", sequence, positions[0]),
                file, "Replay one that begins at position 0.");
  return Stretch{first, end - first};
}

Result<std::shared_ptr<const SchemeFile>> routes_of(const TraceReader& trace, int sequence) {
  const TraceInfo& info = trace.info();
  for (size_t row = 0; row + 1 < info.moe_layers.size(); ++row)
    if (info.moe_layers[row] == info.moe_layers[row + 1])
      return fail(ErrorCode::kUsage, fmt::format("layer {} has several rows of decisions; a replay cannot say which.", info.moe_layers[row]), info.path.string());
  SY_TRY(const Stretch stretch, stretch_of(trace, sequence));
  auto file = std::make_shared<SchemeFile>();
  SY_TRY(const std::vector<TokenId> tokens, trace.token_ids(stretch.first, stretch.count));
  for (int row = 0; row < info.layers; ++row) {
    SchemeData& data = file->layers[info.moe_layers[size_t(row)]];
    data.columns = info.top_k;
    data.tokens = tokens;
    SY_TRY(data.table, trace.expert_ids(row, stretch.first, stretch.count));
    if (has(info, "/routing/weight")) {
      SY_TRY(data.weights, trace.weights(row, stretch.first, stretch.count));
    }
    if (has(info, "/routing/slot_kind")) {
      SY_TRY(data.kinds, trace.slot_kinds(row, stretch.first, stretch.count));
      for (const uint8_t kind : data.kinds)
        if (kind > uint8_t(SlotKind::kDropped))
          return fail(ErrorCode::kMalformed, fmt::format("/routing/slot_kind holds {}.", kind), info.path.string(), "Run switchyard trace verify.");
    }
  }
  return std::shared_ptr<const SchemeFile>(std::move(file));
}

Result<std::shared_ptr<const SchemeFile>> read(const std::string& path, int sequence) {
  SY_TRY(const auto trace, TraceReader::open(path));
  return routes_of(*trace, sequence);
}

Result<void> check_fits(const TraceInfo& info, const ModelPlan& plan) {
  const std::string file = info.path.string();
  if (info.moe_layers != plan.moe_layers)
    return fail(ErrorCode::kUsage, fmt::format("the trace has routers in the layers {}, the model in {}.", fmt::join(info.moe_layers, ", "),
                                               fmt::join(plan.moe_layers, ", ")), file, "Replay it on the model that was recorded.");
  if (info.experts != plan.max_experts())
    return fail(ErrorCode::kUsage, fmt::format("the trace has {} experts in a layer, the model {}.", info.experts, plan.max_experts()), file,
                "Replay it on the model that was recorded.");
  return {};
}

// What /meta/run says of the sampling; a trace of another tool may say anything.
void read_sampling(const std::string& run_json, Replay& out) {
  const Json run = Json::parse(run_json, nullptr, false);
  if (!run.is_object() || !run.contains("sampling") || !run["sampling"].is_object()) return;
  const Json& said = run["sampling"];
  SamplingDefaults sampling{.do_sample = !said.value("greedy", Json(true)).is_boolean() || !said.value("greedy", true)};
  if (sampling.do_sample) {
    for (const char* key : {"temperature", "top_p", "top_k", "seed"})
      if (!said.contains(key) || !said[key].is_number()) return;
    if (!said["top_k"].is_number_integer() || !said["seed"].is_number_integer()) return;
    sampling.temperature = said["temperature"].get<float>();
    sampling.top_p = said["top_p"].get<float>();
    sampling.top_k = said["top_k"].get<int>();
    out.seed = said["seed"].get<uint64_t>();
  }
  out.sampling = sampling;
}

// What the trace's edits did to experts is not in its routes.
bool edits_experts(const std::string& edits_json) {
  for (const char* kind : {"expert_scale", "swap", "merge", "clone", "replace", "neuron_mask"})
    if (edits_json.find(fmt::format("\"kind\":\"{}\"", kind)) != std::string::npos) return true;
  return false;
}

}  // namespace

Result<Replay> read_replay(const std::filesystem::path& path, int sequence, const ModelPlan& plan, Task* task) {
  SY_TRY(const auto trace, TraceReader::open(path, task));
  const TraceInfo& info = trace->info();
  SY_CHECK(check_fits(info, plan));
  SY_TRY(const Stretch stretch, stretch_of(*trace, sequence));

  Replay out;
  SY_TRY(const auto tokens, trace->token_ids(stretch.first, stretch.count));
  SY_TRY(const auto phases, trace->token_column("phase", stretch.first, stretch.count));
  SY_TRY(const auto positions, trace->token_column("position", stretch.first, stretch.count));
  uint64_t prompt = 0;
  while (prompt < stretch.count && phases[prompt] == 0) ++prompt;
  out.prompt.assign(tokens.begin(), tokens.begin() + int64_t(prompt));
  out.generated.assign(tokens.begin() + int64_t(prompt), tokens.end());
  if (plan.encoder_layers > 0)  // the decoder counts anew; its start token is not part of what Start takes
    for (uint64_t i = 1; i < prompt; ++i)
      if (positions[i] == 0) {
        out.prompt.resize(i);
        break;
      }
  if (out.prompt.empty()) return fail(ErrorCode::kUsage, "the sequence begins without a prompt.", info.path.string());

  read_sampling(info.run_json, out);

  Scheme scheme;
  scheme.choice = {"replay", {{"file", path.string()}}};
  if (sequence != 0) scheme.choice.parameters.emplace("sequence", double(sequence));
  scheme.stages.selector = Selector::kReplay;
  scheme.stages.weights = WeightRule::kNative;
  SY_TRY(scheme.file, routes_of(*trace, sequence));
  out.edit = {SetScheme{{}, std::move(scheme)}, std::nullopt};
  if (auto fits = validate(out.edit.edit, plan); !fits) {
    Error error = std::move(fits).error();
    error.where = info.path.string();
    return tl::unexpected<Error>(std::move(error));
  }

  if (!has(info, "/routing/weight")) out.notes.push_back("The trace holds no weights: its experts are weighed by the model's own rule.");
  SY_TRY(const auto epochs, trace->epochs());
  bool experts = edits_experts(info.edits_json);
  for (const auto& epoch : epochs)
    experts |= epoch.first_token < stretch.first + stretch.count && edits_experts(epoch.json);
  if (experts)
    out.notes.push_back("The trace was recorded under edits of experts (scale, swap, merge, clone, neuron mask); a replay takes only who ran with what weight. Give them as edits too.");
  return out;
}

void read_schemes_from_traces() { set_routes_reader(&read); }

}  // namespace switchyard

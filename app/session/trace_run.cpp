// Trace rows back into frames. A job's thread.
#include "app/session/trace_run.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "engine/model/router_tensors.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"

namespace switchyard {
namespace {

using nlohmann::json;

// The encoder's layers, from names like "encoder layer 1" and "decoder layer 0": the decoder counts anew.
int encoder_layers_of(const TraceInfo& info) {
  int encoder = 0;
  for (size_t row = 0; row < info.router_names.size(); ++row) {
    std::string_view name = info.router_names[row];
    const int layer = info.moe_layers[row];
    if (name.starts_with("encoder layer ")) encoder = std::max(encoder, layer + 1);
    constexpr std::string_view kDecoder = "decoder layer ";
    if (!name.starts_with(kDecoder)) continue;
    name.remove_prefix(kDecoder.size());
    int own = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), own);
    if (error == std::errc() && own >= 0 && own <= layer) return layer - own;
  }
  return encoder;
}

// Rows that are named "layer 3 · pass 2" are later decisions of the router before them.
struct TraceRows {
  std::vector<int> in_frame;  // the row of a frame that each is
  TraceInfo routers;          // the trace without later decisions
};
TraceRows rows_of(const TraceInfo& info) {
  TraceRows out{{}, info};
  out.routers.moe_layers.clear();
  out.routers.router_names.clear();
  auto& names = out.routers.router_names;
  std::vector<std::pair<size_t, int>> places;  // router and pass of each row
  std::vector<int> passes;                     // of each router, so far
  for (size_t row = 0; row < info.moe_layers.size(); ++row) {
    const std::string name = row < info.router_names.size() ? info.router_names[row] : std::string();
    const size_t cut = name.find(" · ");
    const auto found = cut == std::string::npos ? names.end() : std::find(names.begin(), names.end(), name.substr(0, cut));
    const auto router = size_t(found - names.begin());
    if (router == names.size()) {
      names.push_back(name);
      out.routers.moe_layers.push_back(info.moe_layers[row]);
      passes.push_back(0);
    }
    places.emplace_back(router, passes[router]++);
  }
  for (const auto& [router, pass] : places) out.in_frame.push_back(pass * int(names.size()) + int(router));
  return out;
}

// A plan with the routing rows of the trace. Where the model is at hand its own plan is used instead.
ModelPlan plan_of(const TraceInfo& info) {
  ModelPlan plan;
  const json config = json::parse(info.model_config_json, nullptr, false);
  if (config.is_object() && config.contains("config") && config["config"].is_object())
    plan.family = config["config"].value("model_type", std::string());
  const int layers = info.moe_layers.empty() ? 0 : info.moe_layers.back() + 1;
  plan.layers.resize(size_t(layers));
  MoeSpec moe;
  moe.router.experts = info.experts;
  moe.router.experts_per_token = std::max(info.top_k, 1);
  moe.experts.resize(size_t(info.experts));
  MixtureAttentionSpec attention;
  attention.router = moe.router;
  plan.encoder_layers = encoder_layers_of(info);
  for (size_t row = 0; row < info.moe_layers.size(); ++row) {
    const bool mixes = row < info.router_names.size() && info.router_names[row].ends_with(" attention");
    auto& sublayers = plan.layers[size_t(info.moe_layers[row])].sublayers;
    if (mixes)
      sublayers.push_back({.op = attention});
    else
      sublayers.push_back({.op = moe});
  }
  number_rows(plan);
  return plan;
}

// The model's own description, when its folder or name leads to the same routing rows.
void use_model_at_hand(TraceRun& run, const std::vector<int>& moe_layers) {
  const json meta = json::parse(run.info.model_config_json, nullptr, false);
  if (!meta.is_object()) return;
  for (const char* key : {"folder", "path", "name"}) {
    if (!meta.contains(key) || !meta[key].is_string()) continue;
    const auto checkpoint = open_checkpoint(meta[key].get<std::string>());
    if (!checkpoint || checkpoint->plan.moe_layers != moe_layers ||
        checkpoint->plan.max_experts() != run.info.experts)
      continue;
    run.plan = checkpoint->plan;
    run.model_at_hand = true;
    if (auto tensors = read_router_tensors(*checkpoint))
      run.router_tensors = std::move(*tensors);
    else
      run.model_at_hand = false;  // without its biases the native choice is not known
    if (const auto tokenizer = Tokenizer::load(*checkpoint)) run.tokenizer = *tokenizer;
    return;
  }
}

// The columns of one routing row for a block of tokens.
struct RowBlock {
  std::vector<ExpertId> ids;
  std::vector<float> weights, logits, entropy, mass, margin, lse;
};

Result<RowBlock> read_row(const TraceReader& reader, int row, uint64_t first, uint64_t tokens) {
  const TraceInfo& info = reader.info();
  const auto has = [&](std::string_view field) {
    return std::find(info.fields.begin(), info.fields.end(), field) != info.fields.end();
  };
  RowBlock block;
  SY_TRY(block.ids, reader.expert_ids(row, first, tokens));
  if (info.capture >= CaptureLevel::kWeights) {
    SY_TRY(block.weights, reader.weights(row, first, tokens));
  }
  if (info.capture >= CaptureLevel::kLogits) {
    SY_TRY(block.logits, reader.router_logits(row, first, tokens));
  }
  const std::pair<const char*, std::vector<float>*> scalars[] = {
      {"entropy", &block.entropy}, {"topk_mass", &block.mass}, {"margin", &block.margin}, {"lse", &block.lse}};
  for (const auto& [name, values] : scalars) {
    if (!has(std::string("/routing/") + name)) continue;
    SY_TRY(*values, reader.scalar(name, row, first, tokens));
  }
  return block;
}

float at_or_zero(const std::vector<float>& values, size_t i) {
  return i < values.size() ? values[i] : 0.0f;
}

// Selected experts that the native router would not have selected, as its logits tell; no file records it.
int changed_by_edits(const TraceRun& run, int row, std::span<const ExpertId> used, std::span<const float> logits) {
  const int router = row % int(run.plan.rows.size());
  const RouterSpec& spec = run.plan.routed(router).router;
  RouterInput in{.logits = logits.first(size_t(spec.experts))};
  if (size_t(router) < run.router_tensors.size())
    in.router_bias = run.router_tensors[size_t(router)].logit_bias,
    in.select_bias = run.router_tensors[size_t(router)].select_bias;
  const std::vector<uint8_t> native = explain(spec, nullptr, in).native_selected;
  return int(std::count_if(used.begin(), used.end(), [&](ExpertId id) { return !native[id]; }));
}

void fill_row(RoutingFrame& frame, int row, const RowBlock& block, size_t i, const TraceRun& run, bool edited) {
  const TraceInfo& info = run.info;
  const auto k = size_t(info.top_k), experts = size_t(info.experts);
  const std::span<const ExpertId> ids(block.ids.data() + i * k, k);
  Decision decision;
  while (size_t(decision.k_used) < k && ids[size_t(decision.k_used)] != kNoExpert) ++decision.k_used;
  decision.stats = {at_or_zero(block.entropy, i), at_or_zero(block.mass, i), at_or_zero(block.margin, i),
                    at_or_zero(block.lse, i)};
  const std::vector<SlotKind> kinds(k, SlotKind::kRouted);
  std::vector<float> weights(k, 0.0f);
  if (!block.weights.empty()) std::copy_n(block.weights.begin() + ptrdiff_t(i * k), k, weights.begin());
  std::span<const float> logits;
  if (!block.logits.empty()) logits = {block.logits.data() + i * experts, experts};
  if (edited && run.model_at_hand && !logits.empty())
    decision.changed = changed_by_edits(run, row, ids.first(size_t(decision.k_used)), logits);
  frame.record(row, decision, ids, weights, kinds, logits);
  if (row < frame.header().moe_layers && decision.k_used == 0 && decision.stats.lse == 0) frame.header().flags |= FrameFlags::kPartial;
}

// The edits of an epoch; its number and its parent stand beside them.
Result<std::vector<EditCommand>> edits_of_epoch(const std::string& text, const ModelPlan& plan) {
  const json row = json::parse(text, nullptr, false);
  const json edits = row.is_object() && row.contains("edits") ? row["edits"] : json();
  return parse_script(json{{"edits", edits}}.dump(), plan);
}

std::vector<Epoch> epochs_of(const TraceReader& reader, const ModelPlan& plan, uint64_t first, uint64_t tokens,
                             std::vector<std::string>& notes) {
  std::vector<Epoch> out;
  const auto rows = reader.epochs();
  if (!rows) return out;
  uint32_t number = 0;
  for (const auto& row : *rows) {
    if (row.first_token >= first + tokens) break;
    Epoch epoch;
    epoch.epoch = number++;
    epoch.first_token = row.first_token > first ? row.first_token - first : 0;
    const auto edits = edits_of_epoch(row.json, plan);
    auto recipe = std::make_shared<Recipe>();
    recipe->epoch = epoch.epoch;
    if (edits) {
      epoch.edits = *edits;
      for (const EditCommand& command : *edits) apply(command.edit, plan, *recipe);
    } else {
      notes.push_back("The edits from token " + std::to_string(row.first_token) +
                      " on cannot be shown: " + edits.error().message());
    }
    epoch.sentence = epoch.edits.empty() ? "Native router" : describe(epoch.edits.back().edit);
    epoch.recipe = recipe;
    if (epoch.first_token == 0) out.clear();  // only the last one at the start is in force there
    out.push_back(std::move(epoch));
  }
  return out;
}

}  // namespace

Result<TraceRun> load_trace_run(const std::filesystem::path& path, uint64_t sequence, Task* task, size_t byte_budget) {
  SY_TRY(const auto reader, TraceReader::open(path, task));
  TraceRun run;
  run.info = reader->info();
  const auto [frame_rows, routers] = rows_of(run.info);
  run.plan = plan_of(routers);
  use_model_at_hand(run, routers.moe_layers);

  SY_TRY(auto offsets, reader->sequence_offsets());
  if (offsets.size() < 2) offsets = {0, int64_t(run.info.tokens)};
  run.sequences = offsets.size() - 1;
  if (sequence >= run.sequences)
    return fail(ErrorCode::kUsage, "The trace has " + std::to_string(run.sequences) + " sequences.", path.string());
  run.sequence = sequence;
  const auto first = uint64_t(offsets[sequence]);
  uint64_t tokens = std::min(uint64_t(offsets[sequence + 1]), run.info.tokens) - first;

  const int rows = run.info.layers, first_rows = int(routers.moe_layers.size());
  const int passes = frame_rows.empty() ? 1 : 1 + *std::max_element(frame_rows.begin(), frame_rows.end()) / first_rows;
  const RoutingFrame blank(first_rows, run.info.experts, run.info.top_k, run.info.capture, passes);
  const size_t one = blank.memory_bytes();
  if (tokens * one > byte_budget) {
    run.tokens_left_out = tokens - byte_budget / one;
    tokens = byte_budget / one;
  }
  SY_TRY(const auto ids, reader->token_ids(first, tokens));
  SY_TRY(const auto phases, reader->token_column("phase", first, tokens));
  SY_TRY(const auto positions, reader->token_column("position", first, tokens));
  SY_TRY(const auto epochs, reader->token_column("recipe_epoch", first, tokens));

  auto snapshot = std::make_shared<SessionSnapshot>();
  snapshot->state = RunState::kFinished;
  snapshot->capture = run.info.capture;
  snapshot->sequence = uint32_t(sequence);
  snapshot->backend.name = "trace";
  snapshot->backend.detail = path.filename().string();
  snapshot->dropped_frames = run.info.dropped;
  snapshot->epochs = epochs_of(*reader, run.plan, first, tokens, run.info.notes);

  run.frames.reserve(tokens);
  constexpr uint64_t kBlock = 1024;
  for (uint64_t begin = 0; begin < tokens; begin += kBlock) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "Cancelled.");
    if (task) task->report(double(begin) / double(tokens), "reading the trace");
    const uint64_t count = std::min(kBlock, tokens - begin);
    std::vector<RoutingFrame> block;
    for (uint64_t i = 0; i < count; ++i) {
      RoutingFrame& frame = block.emplace_back(blank);
      FrameHeader& header = frame.header();
      header.token_index = begin + i;
      header.token_id = ids[begin + i];
      header.position = positions[begin + i];
      header.sequence = uint32_t(sequence);
      header.recipe_epoch = epochs[begin + i];
      header.phase = phases[begin + i] == 0 ? Phase::kPrefill : Phase::kDecode;
      (header.phase == Phase::kPrefill ? snapshot->prompt_ids : snapshot->generated_ids).push_back(header.token_id);
    }
    for (int row = 0; row < rows; ++row) {
      SY_TRY(const RowBlock columns, read_row(*reader, row, first + begin, count));
      for (uint64_t i = 0; i < count; ++i) {
        const Recipe* recipe = snapshot->recipe_at(begin + i);
        const int at = frame_rows[size_t(row)];
        fill_row(block[i], at, columns, i, run, recipe && recipe->layer(at % first_rows) && chooses_experts(run.plan, at, recipe));
      }
    }
    for (RoutingFrame& frame : block) run.frames.push_back(std::make_shared<const RoutingFrame>(std::move(frame)));
  }
  if (run.plan.encoder_layers > 0)  // the decoder counts its positions anew
    for (uint64_t i = 1; i < tokens && snapshot->encoder_tokens == 0; ++i)
      if (positions[i] == 0) snapshot->encoder_tokens = i;
  run.snapshot = std::move(snapshot);
  return run;
}

}  // namespace switchyard

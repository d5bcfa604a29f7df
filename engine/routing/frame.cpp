#include "engine/routing/frame.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "engine/routing/adapter_rows.h"

namespace switchyard {
namespace {

// Offsets of the arrays inside the arena; every array starts on its element's alignment because the
// wider types come first.
struct Layout {
  size_t layers, logits, weights, norms, cosines, ids, guesses, kinds, total;
};

Layout layout_of(const FrameHeader& h) {
  const size_t rows = size_t(h.moe_layers) * h.passes, slots = h.slots;
  Layout at{};
  at.layers = 0;
  at.logits = rows * sizeof(LayerHeader);
  at.weights = at.logits + (h.capture >= CaptureLevel::kLogits ? rows * h.experts * sizeof(float) : 0);
  at.norms = at.weights + (h.capture >= CaptureLevel::kWeights ? rows * slots * sizeof(float) : 0);
  at.cosines = at.norms + (h.taps & Taps::kOutNorm ? rows * slots * sizeof(float) : 0);
  at.ids = at.cosines + (h.taps & Taps::kBlockCos ? rows * sizeof(float) : 0);
  at.guesses = at.ids + rows * slots * sizeof(ExpertId);
  at.kinds = at.guesses + (h.taps & Taps::kPredGate ? rows * slots * sizeof(ExpertId) : 0);
  at.total = at.kinds + rows * slots * sizeof(SlotKind);
  return at;
}

template <class T>
std::span<T> slice(std::byte* arena, size_t offset, size_t row, size_t width) {
  return {reinterpret_cast<T*>(arena + offset) + row * width, width};
}

}  // namespace

RoutingFrame::RoutingFrame(int moe_layers, int experts, int slots, CaptureLevel capture, int passes, uint8_t taps) {
  header_.moe_layers = static_cast<uint16_t>(moe_layers);
  header_.experts = static_cast<uint16_t>(experts);
  header_.slots = static_cast<uint16_t>(slots);
  header_.passes = static_cast<uint16_t>(passes);
  header_.capture = capture;
  header_.taps = taps;
  const Layout at = layout_of(header_);
  arena_.resize(at.total);
  auto all_ids = slice<ExpertId>(arena_.data(), at.ids, 0, (at.kinds - at.ids) / sizeof(ExpertId));  // and guesses
  std::fill(all_ids.begin(), all_ids.end(), kNoExpert);
  if (taps & Taps::kBlockCos) {
    auto cosines = slice<float>(arena_.data(), at.cosines, 0, size_t(rows()));
    std::fill(cosines.begin(), cosines.end(), std::numeric_limits<float>::quiet_NaN());
  }
}

LayerHeader& RoutingFrame::layer(int moe_layer) {
  return slice<LayerHeader>(arena_.data(), 0, 0, size_t(rows()))[moe_layer];
}

const LayerHeader& RoutingFrame::layer(int moe_layer) const {
  return const_cast<RoutingFrame*>(this)->layer(moe_layer);
}

std::span<const ExpertId> RoutingFrame::ids(int moe_layer) const {
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const ExpertId>(data, layout_of(header_).ids, moe_layer, header_.slots);
}

std::span<const float> RoutingFrame::weights(int moe_layer) const {
  if (header_.capture < CaptureLevel::kWeights) return {};
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const float>(data, layout_of(header_).weights, moe_layer, header_.slots);
}

std::span<const SlotKind> RoutingFrame::kinds(int moe_layer) const {
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const SlotKind>(data, layout_of(header_).kinds, moe_layer, header_.slots);
}

std::span<const float> RoutingFrame::logits(int moe_layer) const {
  if (header_.capture < CaptureLevel::kLogits) return {};
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const float>(data, layout_of(header_).logits, moe_layer, header_.experts);
}

std::span<const float> RoutingFrame::out_norms(int moe_layer) const {
  if (!(header_.taps & Taps::kOutNorm)) return {};
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const float>(data, layout_of(header_).norms, moe_layer, header_.slots);
}

float RoutingFrame::block_cos(int moe_layer) const {
  if (!(header_.taps & Taps::kBlockCos)) return std::numeric_limits<float>::quiet_NaN();
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const float>(data, layout_of(header_).cosines, moe_layer, 1)[0];
}

std::span<const ExpertId> RoutingFrame::guessed(int moe_layer) const {
  if (!(header_.taps & Taps::kPredGate)) return {};
  auto* data = const_cast<std::byte*>(arena_.data());
  return slice<const ExpertId>(data, layout_of(header_).guesses, moe_layer, header_.slots);
}

void RoutingFrame::note_out_norm(int moe_layer, ExpertId expert, float norm) {
  if (!(header_.taps & Taps::kOutNorm)) return;
  const auto used = used_ids(moe_layer);
  const auto slot = std::find(used.begin(), used.end(), expert) - used.begin();
  if (slot < ptrdiff_t(used.size())) slice<float>(arena_.data(), layout_of(header_).norms, moe_layer, header_.slots)[slot] = norm;
}

void RoutingFrame::note_block_cos(int moe_layer, float cosine) {
  if (header_.taps & Taps::kBlockCos) slice<float>(arena_.data(), layout_of(header_).cosines, moe_layer, 1)[0] = cosine;
}

void RoutingFrame::note_guess(int moe_layer, std::span<const ExpertId> ids) {
  if (!(header_.taps & Taps::kPredGate)) return;
  const auto own = slice<ExpertId>(arena_.data(), layout_of(header_).guesses, moe_layer, header_.slots);
  if (!own.empty() && own[0] == kNoExpert) std::copy_n(ids.begin(), std::min(ids.size(), own.size()), own.begin());
}

void RoutingFrame::record(int moe_layer, const Decision& decision, std::span<const ExpertId> ids,
                          std::span<const float> weights, std::span<const SlotKind> kinds,
                          std::span<const float> logits) {
  if (header_.capture == CaptureLevel::kOff) return;
  LayerHeader& out = layer(moe_layer);
  out.stats = decision.stats;
  out.k_used = static_cast<uint16_t>(decision.k_used);
  out.changed = static_cast<uint16_t>(decision.changed);
  out.nulls = static_cast<uint16_t>(decision.nulls);
  if (decision.had_nan) header_.flags |= FrameFlags::kNan;
  if (decision.fell_back) header_.flags |= FrameFlags::kFallback;

  const Layout at = layout_of(header_);
  auto out_ids = slice<ExpertId>(arena_.data(), at.ids, moe_layer, header_.slots);
  auto out_kinds = slice<SlotKind>(arena_.data(), at.kinds, moe_layer, header_.slots);
  const bool with_weights = header_.capture >= CaptureLevel::kWeights;

  // Slot order: null and dropped slots last, then falling weight, then lower id. Insertion sort: k is small.
  const auto executed = [&](int slot) { return kinds[slot] == SlotKind::kRouted || kinds[slot] == SlotKind::kForced; };
  const auto before = [&](int a, int b) {
    if (executed(a) != executed(b)) return executed(a);
    if (weights[a] != weights[b]) return weights[a] > weights[b];
    return ids[a] < ids[b];
  };
  thread_local std::vector<int> order;
  order.resize(decision.k_used);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), before);

  for (int slot = 0; slot < decision.k_used; ++slot) {
    out_ids[slot] = ids[order[slot]];
    out_kinds[slot] = kinds[order[slot]];
    if (with_weights) slice<float>(arena_.data(), at.weights, moe_layer, header_.slots)[slot] = weights[order[slot]];
  }
  for (int slot = decision.k_used; slot < decision.k_used + decision.nulls; ++slot) out_kinds[slot] = SlotKind::kNull;
  if (header_.capture >= CaptureLevel::kLogits && !logits.empty()) {
    auto row = slice<float>(arena_.data(), at.logits, moe_layer, header_.experts);
    std::copy(logits.begin(), logits.end(), row.begin());
  }
}

namespace {

// What a router decides in all passes of its layer, before the rows of adapters.
struct OwnRows {
  int count = 1;
  bool slices = false;  // every second one is theirs
};
OwnRows own_rows(const ModelPlan& plan, int router, const Recipe* recipe) {
  const LayerRecipe* layer = recipe ? recipe->layer(router) : nullptr;
  const int passes = recipe ? std::max(1, recipe->passes_of(plan.moe_layers[size_t(router)])) : 1;
  return {decisions_of(layer) * passes, layer && cuts_experts(layer->scheme)};
}

std::string name_of(const ModelPlan& plan, int row, const Recipe* recipe, std::span<const AdapterRow> adapters) {
  const int routers = static_cast<int>(plan.rows.size()), decision = row / routers, router = row % routers;
  const std::string name = plan.row_name(router);
  if (decision == 0) return name;
  const OwnRows own = own_rows(plan, router, recipe);
  if (decision < own.count) {
    const int pass = own.slices ? decision / 2 : decision;
    return fmt::format("{}{}{}", name, pass > 0 ? fmt::format(" · pass {}", pass + 1) : "", own.slices && decision % 2 == 1 ? " · slices" : "");
  }
  for (const AdapterRow& adapter : adapters)
    if (adapter.row == row) return fmt::format("{} · {} adapter", name, adapter.set->linears.at(adapter.place).label);
  return fmt::format("{} · decision {}", name, decision + 1);
}

}  // namespace

std::string decision_name(const ModelPlan& plan, int row, const Recipe* recipe) {
  return name_of(plan, row, recipe, recipe ? adapter_rows(plan, *recipe) : std::vector<AdapterRow>());
}

bool chooses_experts(const ModelPlan& plan, int row, const Recipe* recipe) {
  const int routers = static_cast<int>(plan.rows.size()), decision = row / routers;
  const OwnRows own = own_rows(plan, row % routers, recipe);
  return decision == 0 || (decision < own.count && !(own.slices && decision % 2 == 1));
}

std::vector<DecisionRow> decision_rows(const ModelPlan& plan, const Recipe& recipe) {
  std::vector<DecisionRow> rows;
  const std::vector<AdapterRow> adapters = adapter_rows(plan, recipe);
  const int routers = static_cast<int>(plan.rows.size());
  const auto add = [&](int row) { rows.push_back({row, plan.moe_layers[size_t(row % routers)], name_of(plan, row, &recipe, adapters)}); };
  for (int router = 0; router < routers; ++router)
    for (int pass = 0; pass < decisions_of(recipe.layer(router)) * recipe.passes_of(plan.moe_layers[size_t(router)]); ++pass)
      add(pass * routers + router);
  for (const AdapterRow& adapter : adapters) add(adapter.row);
  // The routers of one layer decide, then those of its next pass, then those of its adapters.
  std::stable_sort(rows.begin(), rows.end(), [](const DecisionRow& a, const DecisionRow& b) { return std::pair(a.layer, a.row) < std::pair(b.layer, b.row); });
  return rows;
}

bool leaves_rows_out(const ModelPlan& plan, const Recipe& recipe) {
  return plan.encoder_layers > 0 ||
         std::any_of(plan.moe_layers.begin(), plan.moe_layers.end(), [&](int layer) { return recipe.passes_of(layer) == 0; });
}

RoutingFrame make_frame(const ModelPlan& plan, const Recipe& recipe, CaptureLevel capture, uint8_t taps) {
  const int routers = static_cast<int>(plan.rows.size());
  int slots = plan.max_experts_per_token(), passes = 1;
  for (int router = 0; router < routers; ++router) {
    const LayerRecipe* layer = recipe.layer(router);
    slots = std::max({slots, slots_needed(plan.routed(router).router, layer), layer ? layer->scheme.stages.slices : 0});
    passes = std::max(passes, decisions_of(layer) * recipe.passes_of(plan.moe_layers[size_t(router)]));
  }
  for (const AdapterRow& adapter : adapter_rows(plan, recipe)) {
    slots = std::max(slots, most_chosen(adapter.set->rule, adapter.set->linears.at(adapter.place)));
    passes = std::max(passes, adapter.row / routers + 1);
  }
  return RoutingFrame(routers, plan.max_experts(), slots, capture, passes, taps);
}

}  // namespace switchyard

// See way.h.
#include "engine/backend/cuda/way.h"

#include <algorithm>

#include "engine/backend/cuda/host_walk.h"

namespace switchyard::cuda {
namespace {

size_t first_place(const SublayerOnDevice& sublayer) {
  if (const auto* a = std::get_if<AttentionOnDevice>(&sublayer.op)) return a->place.keys;
  if (const auto* l = std::get_if<LatentOnDevice>(&sublayer.op)) return l->place.keys;
  return 0;
}

// How many tokens back the routers between this sublayer and the next attention of its layer follow it; 0: none does.
int window_of(const ModelOnDevice& model, const Recipe& recipe, size_t attention) {
  int window = 0;
  for (size_t i = attention + 1; i < model.sublayers.size(); ++i) {
    const auto* routed = std::get_if<FeedForwardOnDevice>(&model.sublayers[i].op);
    if (!routed || model.sublayers[i].layer != model.sublayers[attention].layer) break;
    const LayerRecipe* own = routed->row >= 0 ? recipe.layer(routed->row) : nullptr;
    if (own && own->scheme && own->scheme.stages.mixing == Mixing::kAttention)
      window = std::max(window, own->scheme.stages.window);
  }
  return window;
}

}  // namespace

KeyLayout key_layout(const ModelOnDevice& model, std::span<const uint8_t> passes) {
  KeyLayout out{.path = {passes.begin(), passes.end()}, .keys = {}, .block_bytes = 0};
  if (passes.empty()) {
    out.block_bytes = model.block_bytes;
    out.keys.emplace_back();
    for (const SublayerOnDevice& sublayer : model.sublayers) out.keys[0].push_back(first_place(sublayer));
    return out;
  }
  const int most = std::max<int>(1, *std::ranges::max_element(passes));
  for (int pass = 0; pass < most; ++pass) {
    auto& keys = out.keys.emplace_back();
    for (const SublayerOnDevice& sublayer : model.sublayers) {
      const bool runs = pass < passes[size_t(sublayer.layer)];
      keys.push_back(runs ? out.block_bytes : 0);
      if (runs) out.block_bytes += Executor::key_bytes(sublayer);
    }
  }
  return out;
}

Way way_of(const ModelOnDevice& model, const ForwardRequest& request, int end_layer, const KeyLayout& layout) {
  const Recipe& recipe = *request.recipe;
  const uint8_t taps =
      request.frames.empty() ? 0 : request.frames[0].header().taps & (Taps::kOutNorm | Taps::kBlockCos);
  const bool looks = request.tap || request.units || taps != 0;
  Way out;
  out.unwritten.assign(model.rows.size(), 1);
  bool plain = recipe.path.passes.empty();
  for (size_t first = 0, end = 0; first < model.sublayers.size(); first = end) {
    const int layer = model.sublayers[first].layer;
    while (end < model.sublayers.size() && model.sublayers[end].layer == layer) ++end;
    const bool part = layer >= request.first_layer && layer < end_layer,
               off = !request.experts_off.empty() && request.experts_off[size_t(layer)];
    const int passes = part ? recipe.passes_of(layer) : 0;
    plain = plain && passes == 1;
    for (int pass = 0; pass < passes; ++pass)
      for (size_t i = first; i < end; ++i) {
        const auto* ffn = std::get_if<FeedForwardOnDevice>(&model.sublayers[i].op);
        const bool routes = ffn && ffn->row >= 0;
        if (routes && off) {
          plain = false;
          continue;
        }
        const bool decides = routes && host_decides(recipe, ffn->row, request.tokens.size(), passes);
        if (routes && !decides) out.unwritten[size_t(ffn->row)] = 0;
        out.visits.push_back({.sublayer = int(i),
                              .pass = pass,
                              .keys = layout.keys[size_t(pass)][i],
                              .window = ffn ? 0 : window_of(model, recipe, i),
                              .host = decides || (routes && looks)});
        plain = plain && !out.visits.back().host && out.visits.back().window == 0;
      }
  }
  if (plain) return {};
  return out;
}

}  // namespace switchyard::cuda

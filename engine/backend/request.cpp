// See request.h. Linked into the engine and into the reference module.
#include "engine/backend/request.h"

#include <algorithm>

#include "engine/model/linears.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/decision.h"

namespace switchyard {

int end_layer(const ModelPlan& plan, const ForwardRequest& request) {
  return request.end_layer < 0 ? int(plan.layers.size()) : request.end_layer;
}

namespace {

Result<void> check_tokens(const ModelPlan& plan, const ForwardRequest& request) {
  if (request.tokens.empty()) return fail(ErrorCode::kInternal, "forward() was called without tokens.");
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    const TokenId id = request.tokens[i];
    if (id < 0 || id >= plan.vocab) {
      return fail(ErrorCode::kInternal, "token " + std::to_string(i) + " has id " + std::to_string(id) +
                                            ", the model knows 0 to " + std::to_string(plan.vocab - 1) + ".");
    }
  }
  const auto wanted = int64_t(request.cache->length()) + int64_t(request.tokens.size());
  if (wanted > request.cache->capacity()) {
    return fail(ErrorCode::kUsage,
                std::to_string(wanted) + " tokens do not fit into the context of " +
                    std::to_string(request.cache->capacity()) + " tokens.",
                {}, "Open the model with a larger context.");
  }
  return {};
}

Result<void> check_side(const ModelPlan& plan, const ForwardRequest& request) {
  const int held = request.cache->length();
  if (!request.encode)
    return plan.encoder_layers > 0 && held == 0
               ? fail(ErrorCode::kInternal, "the decoder was called before the encoder.")
               : Result<void>{};
  if (plan.encoder_layers == 0) return fail(ErrorCode::kInternal, "the model has no encoder.");
  if (held > 0) return fail(ErrorCode::kInternal, "the encoder takes its tokens in one piece.");
  if (request.rows != LogitRows::kNone) return fail(ErrorCode::kInternal, "an encoder gives no logits.");
  return {};
}

Result<void> check_part(const ModelPlan& plan, const ForwardRequest& request) {
  const int layers = int(plan.layers.size()), end = end_layer(plan, request);
  const bool part = request.first_layer != 0 || end != layers || !request.hidden.empty();
  if (part && plan.encoder_layers > 0) return fail(ErrorCode::kInternal, "parts of an encoder-decoder cannot be run.");
  if (request.first_layer < 0 || end < request.first_layer || end > layers)
    return fail(ErrorCode::kInternal, "there are no such layers to run.");
  if (part && request.hidden.size() < request.tokens.size() * size_t(plan.hidden))
    return fail(ErrorCode::kInternal, "the buffer for hidden states is too small.");
  const auto& recipes = request.recipe->layers;
  if (part && std::any_of(recipes.begin(), recipes.end(), [](const LayerRecipe& layer) { return has_state(layer.scheme); }))
    return fail(ErrorCode::kUsage, "the recurrent router carries a state from layer to layer; parts of the model have none.", {}, "Leave that scheme out.");
  if (end < layers && request.rows != LogitRows::kNone) return fail(ErrorCode::kInternal, "a part of a model gives no logits.");
  if (!request.experts_off.empty() && request.experts_off.size() != plan.layers.size())
    return fail(ErrorCode::kInternal, "experts_off is for another model.");
  return {};
}

Result<void> check_frame(const ModelPlan& plan, const Recipe& recipe, std::span<const AdapterRow> adapters, const RoutingFrame& frame) {
  const FrameHeader& header = frame.header();
  if (header.capture == CaptureLevel::kOff) return {};
  if (header.moe_layers != plan.moe_layers.size())
    return fail(ErrorCode::kInternal, "a frame has the wrong number of layers.");
  for (int row = 0; row < header.moe_layers; ++row) {
    const RouterSpec& router = plan.routed(row).router;
    const LayerRecipe* layer = recipe.layer(row);
    const int slices = layer ? layer->scheme.stages.slices : 0;
    if (header.experts < std::max(router.experts, slices) || header.slots < std::max(slots_needed(router, layer), slices) ||
        header.passes < decisions_of(layer) * recipe.passes_of(plan.moe_layers[size_t(row)])) {
      return fail(ErrorCode::kInternal,
                  "a frame has too few experts, slots or passes for MoE layer " + std::to_string(row) + ".");
    }
  }
  for (const AdapterRow& adapter : adapters)
    if (adapter.row >= frame.rows() || header.slots < most_chosen(adapter.set->rule, adapter.set->linears.at(adapter.place)))
      return fail(ErrorCode::kInternal, "a frame has too few slots or rows for the adapters.");
  return {};
}

}  // namespace

Result<void> check_request(const ModelPlan& plan, const ForwardRequest& request) {
  if (!request.cache || !request.recipe)
    return fail(ErrorCode::kInternal, "forward() was called without cache or recipe.");
  SY_CHECK(check_tokens(plan, request));
  SY_CHECK(check_side(plan, request));
  SY_CHECK(check_part(plan, request));
  const Recipe& recipe = *request.recipe;
  if (!recipe.layers.empty() && recipe.layers.size() != plan.moe_layers.size()) {
    return fail(ErrorCode::kInternal, "the recipe is for another model.");
  }
  if (!recipe.adapters.empty() && recipe.adapters.size() != size_t(places_of(plan)))
    return fail(ErrorCode::kInternal, "the recipe's adapters are for another model.");
  const std::vector<uint8_t>& passes = recipe.path.passes;
  if (recipe.path.chooser) return fail(ErrorCode::kInternal, "the layer path was not chosen yet.");
  if (!passes.empty() && passes.size() != plan.layers.size())
    return fail(ErrorCode::kInternal, "the layer path is for another model.");
  const auto held = request.cache->path();
  if (request.cache->length() > 0 && !std::ranges::equal(held, passes))
    return fail(ErrorCode::kInternal, "the layer path changed within a sequence.");
  const size_t rows = request.rows == LogitRows::kNone   ? 0
                      : request.rows == LogitRows::kLast ? 1
                                                         : request.tokens.size();
  if (request.logits.size() < rows * size_t(plan.vocab))
    return fail(ErrorCode::kInternal, "the buffer for logits is too small.");
  if (request.frames.empty()) return {};
  if (request.frames.size() != request.tokens.size())
    return fail(ErrorCode::kInternal, "tokens and frames differ in number.");
  const std::vector<AdapterRow> adapters = adapter_rows(plan, recipe);
  for (const RoutingFrame& frame : request.frames) SY_CHECK(check_frame(plan, recipe, adapters, frame));
  return {};
}

void flag_partial(const ModelPlan& plan, const ForwardRequest& request) {
  if (!leaves_rows_out(plan, *request.recipe)) return;
  for (RoutingFrame& frame : request.frames) frame.header().flags |= FrameFlags::kPartial;
}

}  // namespace switchyard

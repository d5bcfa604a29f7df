// See request.h. Linked into the engine and into the reference module.
#include "engine/backend/request.h"

#include <algorithm>

#include "engine/model/linears.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/decision.h"

namespace switchyard {
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
        header.passes < decisions_of(layer)) {
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
  const Recipe& recipe = *request.recipe;
  if (!recipe.layers.empty() && recipe.layers.size() != plan.moe_layers.size()) {
    return fail(ErrorCode::kInternal, "the recipe is for another model.");
  }
  if (!recipe.adapters.empty() && recipe.adapters.size() != size_t(places_of(plan)))
    return fail(ErrorCode::kInternal, "the recipe's adapters are for another model.");
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

}  // namespace switchyard

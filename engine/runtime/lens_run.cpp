// See lens_run.h.
#include "engine/runtime/lens_run.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/backend/layer_probe.h"
#include "engine/runtime/forced_pass.h"

namespace switchyard {

const char* sublayer_word(const Sublayer& sublayer) {
  if (std::holds_alternative<MoeSpec>(sublayer.op)) return "experts";
  if (std::holds_alternative<FfnSpec>(sublayer.op)) return "feed-forward";
  if (std::holds_alternative<AttentionSpec>(sublayer.op) || std::holds_alternative<LatentAttentionSpec>(sublayer.op) ||
      std::holds_alternative<MixtureAttentionSpec>(sublayer.op))
    return "attention";
  return "mixer";
}

namespace {

// Whether what a token decides may depend on those that run with it.
bool run_together(const ModelPlan& plan, const Recipe& recipe) {
  for (int row = 0; row < int(plan.rows.size()); ++row)
    if (const LayerRecipe* layer = recipe.layer(row); layer && batch_coupled(layer->scheme)) return true;
  return plan.couples_tokens();
}

}  // namespace

Result<std::vector<LensPlace>> logit_lens(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens,
                                          const Recipe& recipe, size_t last, const Task* task) {
  auto* probe = dynamic_cast<LayerProbe*>(&backend);
  if (!probe) return fail(ErrorCode::kUsage, "the " + backend.info().name + " backend does not show its residual stream.", {}, "Use --backend reference.");
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "the logit lens knows no encoder-decoders.");
  if (tokens.empty()) return fail(ErrorCode::kUsage, "the text has no token.");
  const size_t vocab = size_t(plan.vocab), begin = last == 0 ? 0 : tokens.size() - std::min(last, tokens.size());
  // What comes before needs no logits, which may be larger than the model; it stands apart where tokens decide alone.
  const size_t split = run_together(plan, recipe) ? 0 : begin;
  ForcedPass pass(backend, plan, {{0, std::make_shared<const Recipe>(recipe), {}}}, int(tokens.size()));
  pass.begin(0, tokens);
  std::vector<float> model((tokens.size() - split) * vocab);
  std::vector<RoutingFrame> none;
  if (split > 0) SY_CHECK(pass.forward(tokens.first(split), {}, CaptureLevel::kOff, none, task));
  SY_CHECK(pass.forward(tokens.subspan(split), model, CaptureLevel::kOff, none, task));
  std::vector<LensPlace> places;
  const auto see = [&](const LayerProbe::Place& place, size_t token, std::span<const float> logits) {
    if (token == begin) places.push_back({place.layer, place.sublayer, place.pass, {}});
    for (size_t i = 0; i < logits.size() / vocab; ++i)
      places.back().tokens.push_back(read_lens({model.data() + (token + i - split) * vocab, vocab}, logits.subspan(i * vocab, vocab)));
  };
  SY_CHECK(probe->lens(tokens, *pass.spans().front().recipe, begin, see, task));
  return places;
}

std::string place_name(const LensPlace& place, const ModelPlan& plan) {
  return fmt::format("{} {}{}", place.layer, sublayer_word(plan.layers[size_t(place.layer)].sublayers[size_t(place.sublayer)]),
                     place.pass > 0 ? fmt::format(" · pass {}", place.pass + 1) : "");
}

}  // namespace switchyard

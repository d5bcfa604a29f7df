// See lens_run.h.
#include "engine/runtime/lens_run.h"

#include <algorithm>

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

Result<std::vector<LensPlace>> logit_lens(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens,
                                          const Recipe& recipe, size_t last, const Task* task) {
  auto* probe = dynamic_cast<LayerProbe*>(&backend);
  if (!probe) return fail(ErrorCode::kUsage, "the " + backend.info().name + " backend does not show its residual stream.", {}, "Use --backend reference.");
  const size_t vocab = size_t(plan.vocab), begin = last == 0 ? 0 : tokens.size() - std::min(last, tokens.size());
  ForcedPass pass(backend, plan, {{0, std::make_shared<const Recipe>(recipe), {}}}, int(tokens.size()));
  pass.begin(0);
  std::vector<float> model(tokens.size() * vocab);
  std::vector<RoutingFrame> none;
  SY_CHECK(pass.forward(tokens, model, CaptureLevel::kOff, none, task));
  std::vector<LensPlace> places;
  const auto see = [&](int layer, int sublayer, size_t first, std::span<const float> logits) {
    if (first == 0) places.push_back({layer, sublayer, {}});
    for (size_t i = 0; i < logits.size() / vocab; ++i)
      if (first + i >= begin) places.back().tokens.push_back(read_lens({model.data() + (first + i) * vocab, vocab}, logits.subspan(i * vocab, vocab)));
  };
  SY_CHECK(probe->lens(tokens, recipe, see, task));
  return places;
}

}  // namespace switchyard

// See effect_run.h.
#include "engine/runtime/effect_run.h"

#include <fmt/format.h>

#include "engine/runtime/forced_pass.h"

namespace switchyard {

std::string why_no_effect(const ModelPlan& plan, size_t tokens) {
  if (plan.encoder_layers > 0) return "the model is an encoder-decoder: its text has no target of its own";
  if (tokens < 2) return "the loss of a text needs at least two tokens";
  return {};
}

Result<EditEffect> edit_effect(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens, const Recipe& recipe, Task& task) {
  if (const std::string why = why_no_effect(plan, tokens.size()); !why.empty()) return fail(ErrorCode::kUsage, why + ".");
  const int capacity = int(tokens.size());
  ForcedPass base(backend, plan, recipe_spans({}, plan), capacity), edited(backend, plan, {{0, std::make_shared<const Recipe>(recipe), {}}}, capacity);
  base.begin(0, tokens);
  edited.begin(0, tokens);
  const auto vocab = size_t(plan.vocab);
  EditEffect effect;
  std::vector<float> base_logits;
  std::vector<RoutingFrame> none;
  size_t done = 0;
  SY_CHECK(in_chunks(tokens, plan, [&](std::span<const TokenId> part, std::span<float> logits) -> Result<void> {
    task.report(double(done) / double(tokens.size()), fmt::format("{} of {} tokens", done, tokens.size()));
    base_logits.resize(logits.size());
    SY_CHECK(base.forward(part, base_logits, CaptureLevel::kOff, none, &task));
    SY_CHECK(edited.forward(part, logits, CaptureLevel::kOff, none, &task));
    for (size_t i = 0; i < part.size() && done + i + 1 < tokens.size(); ++i)
      effect.add(effect_at({base_logits.data() + i * vocab, vocab}, logits.subspan(i * vocab, vocab), tokens[done + i + 1]));
    done += part.size();
    return {};
  }));
  return effect;
}

}  // namespace switchyard

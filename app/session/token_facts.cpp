// Reading one token off its frame. Any thread.
#include "app/session/token_facts.h"

#include <fmt/format.h>

namespace switchyard {

double token_value(const RoutingFrame& frame, TokenQuantity quantity, int moe_layer) {
  const LayerHeader& layer = frame.layer(moe_layer);
  switch (quantity) {
    case TokenQuantity::kNone:
      return 0;
    case TokenQuantity::kEntropy:
      return layer.stats.entropy;
    case TokenQuantity::kMargin:
      return layer.stats.margin;
    case TokenQuantity::kExpert:
      return layer.k_used > 0 ? frame.ids(moe_layer)[0] : -1;
    case TokenQuantity::kChanged:
      break;
  }
  int changed = 0;
  for (int row = 0; row < frame.header().moe_layers; ++row) changed += frame.layer(row).changed;
  return changed;
}

std::string token_sentence(const RoutingFrame& frame, const std::string& piece, int moe_layer, int layer) {
  const FrameHeader& header = frame.header();
  std::string text = fmt::format("token {} “{}”, id {}, {}, epoch {}", header.token_index, piece, header.token_id,
                                 header.phase == Phase::kPrefill ? "prompt" : "generated", header.recipe_epoch);
  if (header.capture == CaptureLevel::kOff || moe_layer >= header.moe_layers) return text;
  if (!frame.passed(moe_layer)) return text + fmt::format("\ndoes not pass layer {}", layer);
  const LayerHeader& row = frame.layer(moe_layer);
  std::string experts;
  for (const ExpertId id : frame.used_ids(moe_layer))
    experts += (experts.empty() ? "" : ", ") + (id == kNoExpert ? std::string("–") : std::to_string(id));
  text += fmt::format("\nlayer {}: experts {}\nentropy {:.3f} nat, margin {:.3f}, top-k mass {:.3f}", layer, experts,
                      row.stats.entropy, row.stats.margin, row.stats.topk_mass);
  const int changed = int(token_value(frame, TokenQuantity::kChanged, moe_layer));
  if (changed > 0) text += fmt::format("\nchanged by edits: {} selected experts over all layers", changed);
  if (header.flags & FrameFlags::kNan) text += "\nNaN router logits were replaced";
  if (header.flags & FrameFlags::kFallback) text += "\nA plugin's scheme failed; the model's own router decided in its place";
  return text;
}

}  // namespace switchyard

// RoutingFrame: what happened to one token at every router. A trivially copyable header and spans
// into one buffer, so that the ring, the trace writer and a test fixture hold the same bytes.
// Filled by the engine thread, then immutable and shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/model/plan.h"
#include "engine/routing/decision.h"

namespace switchyard {

enum class Phase : uint8_t { kPrefill = 0, kDecode = 1 };
enum class CaptureLevel : uint8_t { kOff = 0, kIds = 1, kWeights = 2, kLogits = 3 };

// Measurements beside the decisions, which cost time of their own.
struct Taps {
  static constexpr uint8_t kOutNorm = 1;   // of each slot: the Euclidean norm of what its expert gave, before weights and scales
  static constexpr uint8_t kBlockCos = 2;  // cosine of the residual stream before and after the routed experts' part is added
  static constexpr uint8_t kPredGate = 4;  // what a router would choose for the input of the router before it (runtime/gate_ahead.h)
};

struct FrameFlags {
  static constexpr uint8_t kNan = 1;       // NaN logits were replaced in some layer
  static constexpr uint8_t kFallback = 2;  // the native gate stood in for a failing scheme
  static constexpr uint8_t kPartial = 4;   // the token did not pass all layers, see leaves_rows_out()
};

struct FrameHeader {
  uint64_t token_index = 0;   // in the sequence, from 0, prompt included
  TokenId token_id = 0;
  uint32_t position = 0;  // for the model; an encoder-decoder's decoder begins at 0 again
  uint32_t sequence = 0;
  uint32_t recipe_epoch = 0;
  Phase phase = Phase::kPrefill;
  CaptureLevel capture = CaptureLevel::kLogits;
  uint8_t flags = 0;
  uint8_t taps = 0;           // of Taps
  uint16_t moe_layers = 0;    // routers
  uint16_t experts = 0;       // E, the largest of any row
  uint16_t slots = 0;         // capacity of the slot axis of this frame
  uint16_t passes = 1;        // decisions for one token that a router has rows for
  float token_seconds = 0;    // wall time of the forward pass that made it (prefill: share of the batch)
  TokenId sampled_id = -1;    // what was generated from this token; -1: none
};

struct LayerHeader {
  DecisionStats stats;
  uint16_t k_used = 0;   // 0 with all statistics 0: the token did not pass this row
  uint16_t changed = 0;  // selected experts the native router would not have selected
  uint16_t nulls = 0;    // null slots after the used ones: no expert, no weight
  uint16_t reserved = 0;
};

// A row of a frame is one decision: of router r the first is row r, the second row moe_layers + r, and so on, so that
// the rows of the model's own routing are the same in every frame. In each pass of a repeated layer it makes as many.
// Behind them come those of adapter routers in its layer.
struct DecisionRow {
  int row = 0;       // of frames
  int layer = 0;     // the model's
  std::string name;  // "layer 3", "layer 3 · pass 2"
  bool operator==(const DecisionRow&) const = default;
};

class RoutingFrame {
 public:
  RoutingFrame() = default;
  // Allocates for the given shape; ids are kNoExpert, numbers zero.
  RoutingFrame(int moe_layers, int experts, int slots, CaptureLevel capture, int passes = 1, uint8_t taps = 0);

  FrameHeader& header() { return header_; }
  const FrameHeader& header() const { return header_; }
  LayerHeader& layer(int moe_layer);
  const LayerHeader& layer(int moe_layer) const;

  int rows() const { return header_.moe_layers * header_.passes; }
  // Whether the token was routed in this row. Of an encoder-decoder it passes one side only, of a skipped layer nothing; a
  // router's later rows are passed where a recipe asks for them.
  bool passed(int row) const {
    if (row >= rows()) return false;
    const bool always = row < header_.moe_layers && !(header_.flags & FrameFlags::kPartial);
    return always || layer(row).k_used > 0 || layer(row).nulls > 0;
  }

  // A slot that the expert's capacity dropped keeps its id and counts as used and as chosen; its kind is kDropped, its
  // applied weight 0, the expert did not run. Where the model renormalises after dropping, the others' weights say so.
  // [slots], falling applied weight, then lower id; null and dropped slots after those, empty ones last, kNoExpert.
  std::span<const ExpertId> ids(int moe_layer) const;
  std::span<const float> weights(int moe_layer) const;     // capture >= weights, else empty
  std::span<const SlotKind> kinds(int moe_layer) const;
  std::span<const float> logits(int moe_layer) const;      // [experts], raw; capture = logits, else empty
  // Empty where they are not tapped. [slots]; 0 where no expert ran.
  std::span<const float> out_norms(int moe_layer) const;
  // NaN where it is not tapped, or the block ran in passes or not at all.
  float block_cos(int moe_layer) const;
  // [slots]; what the router before this one in its stack guessed for it, falling weight; kNoExpert past k and where none did.
  std::span<const ExpertId> guessed(int moe_layer) const;
  std::span<const ExpertId> used_ids(int moe_layer) const { return ids(moe_layer).first(layer(moe_layer).k_used); }

  // Copies one decision in, sorted into slot order. logits may be empty below capture level logits.
  void record(int moe_layer, const Decision& decision, std::span<const ExpertId> ids,
              std::span<const float> weights, std::span<const SlotKind> kinds, std::span<const float> logits);

  // After record(): of the slot that holds the expert; of the row.
  void note_out_norm(int moe_layer, ExpertId expert, float norm);
  void note_block_cos(int moe_layer, float cosine);
  void note_guess(int moe_layer, std::span<const ExpertId> ids);  // the first of a row stays

  // The whole frame as bytes (header excluded): for rings, checksums and fixtures.
  std::span<const std::byte> arena() const { return arena_; }
  size_t memory_bytes() const { return sizeof(*this) + arena_.capacity(); }

 private:
  FrameHeader header_;
  std::vector<std::byte> arena_;  // layers | logits | weights | norms | cosines | ids | guesses | kinds
};

// The row of frames for a router's decision number `decision` in pass `pass` of its layer, both from 0. layer: the
// router's, or null.
inline int decision_row(int routers, int router, const LayerRecipe* layer, int pass, int decision) {
  return router + (pass * decisions_of(layer) + decision) * routers;
}
// "layer 3 · pass 2", "layer 3 · slices", "layer 3 · q_proj adapter": of a row of frames; recipe: that routed the token, or
// null where it is not known ("layer 3 · decision 2").
std::string decision_name(const ModelPlan& plan, int row, const Recipe* recipe);
// Whether the row is a choice among the router's experts, not among their slices or among adapters.
bool chooses_experts(const ModelPlan& plan, int row, const Recipe* recipe);
// The decisions that a token makes under this recipe: of each router in the order of execution, then of the adapter
// routers in its layer (adapter_rows.h).
std::vector<DecisionRow> decision_rows(const ModelPlan& plan, const Recipe& recipe);
// Whether a token does not pass the first row of every router (FrameFlags::kPartial): an encoder-decoder's, or one
// under a path that skips a layer with routers.
bool leaves_rows_out(const ModelPlan& plan, const Recipe& recipe);

// An empty frame with room for those.
RoutingFrame make_frame(const ModelPlan& plan, const Recipe& recipe, CaptureLevel capture, uint8_t taps = 0);

}  // namespace switchyard

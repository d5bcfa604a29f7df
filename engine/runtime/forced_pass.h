// A teacher-forced pass: given tokens through a backend under an edit script, with the logits of every position
// and a frame of every token. Used by score, --dump-logits and comparisons; one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/routing/edit.h"
#include "engine/routing/frame.h"
#include "engine/routing/recipe.h"
#include "engine/runtime/gate_ahead.h"

namespace switchyard {

// One recipe and the first token routed under it.
struct RecipeSpan {
  uint64_t first_token = 0;
  std::shared_ptr<const Recipe> recipe;  // epoch = place in the list
  std::vector<EditCommand> edits;        // in force, oldest first, without at_token
};
// The spans of a validated script: entries apply in order of at_token, equal ones in script order. The
// first span begins at token 0 with every entry that has no at_token, or 0.
std::vector<RecipeSpan> recipe_spans(const std::vector<EditCommand>& script, const ModelPlan& plan);

// Calls `take` with consecutive parts of `tokens` and a buffer [part, vocab] for their logits (at most 64 MiB,
// at least one token); with all of them where the model couples the tokens that run together.
Result<void> in_chunks(std::span<const TokenId> tokens, const ModelPlan& plan,
                       const std::function<Result<void>(std::span<const TokenId>, std::span<float>)>& take);

class ForcedPass {
 public:
  // capacity: tokens of the longest sequence. The backend must outlive this.
  ForcedPass(Backend& backend, const ModelPlan& plan, std::vector<RecipeSpan> spans, int capacity);

  // Forgets the sequence; `sequence` stamps the frames that follow. text: from what routers of layers decide the path, where
  // the edits have some; empty: from the tokens of the first forward().
  void begin(uint32_t sequence, std::span<const TokenId> text = {});
  // Encoder-decoder: routes the encoder's tokens, all at once, at the start of a sequence.
  Result<void> encode(std::span<const TokenId> tokens, CaptureLevel capture, std::vector<RoutingFrame>& frames,
                      const Task* task = nullptr);
  // Routes the next tokens of the sequence, of an encoder-decoder the decoder's; in one pass where the model couples
  // the tokens that run together, so that only edits that begin before them are in force. logits: [tokens, vocab], or
  // empty for none. frames: filled with one frame a token, or emptied when capture is off.
  Result<void> forward(std::span<const TokenId> tokens, std::span<float> logits, CaptureLevel capture,
                       std::vector<RoutingFrame>& frames, const Task* task = nullptr);
  // Where routers of layers decide the path, that of the sequence once its first token was routed.
  const std::vector<RecipeSpan>& spans() const { return spans_; }
  // Of Taps: measured in the frames of what follows. ahead: makes the guesses of kPredGate; must outlive this.
  void set_taps(uint8_t taps, GateAhead* ahead = nullptr) { taps_ = taps, ahead_ = ahead; }
  // See what follows: what routers read, hidden units. Tokens count from the piece in hand. Null: nobody looks.
  void set_router_tap(RouterTap* tap) { tap_ = tap; }
  bool chooses_path() const { return bool(chooser_); }  // of each sequence anew
  void set_unit_tap(UnitTap* units) { units_ = units; }

 private:
  Result<void> choose_path(std::span<const TokenId> tokens, const Task* task);
  const RecipeSpan& span_at(uint64_t token, uint64_t& end) const;
  Result<void> run(std::span<const TokenId> tokens, bool encode, std::span<float> logits, CaptureLevel capture,
                   std::vector<RoutingFrame>& frames, const Task* task);

  Backend& backend_;
  const ModelPlan& plan_;
  std::vector<RecipeSpan> spans_;
  std::unique_ptr<KvCache> cache_;
  PathChooser chooser_;                 // of the script; the spans hold what it decided
  std::span<const TokenId> text_;
  uint32_t sequence_ = 0;
  uint64_t encoder_tokens_ = 0;
  RouterTap* tap_ = nullptr;
  uint8_t taps_ = 0;
  GateAhead* ahead_ = nullptr;
  UnitTap* units_ = nullptr;
};

}  // namespace switchyard

// One sublayer of a plan in ATen operators, fp32: weights loaded once, then run for any sequence.
// One file per kind; formulas: specs/families.md. Built on the loading thread, run on the engine thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/layer_probe.h"
#include "engine/backend/reference/loader.h"
#include "engine/backend/sequence_choices.h"
#include "engine/model/plan.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/router_states.h"
#include "engine/routing/token_memory.h"

namespace switchyard::reference {

// What a sublayer keeps of one sequence. Attention: the first `past` of the room along dimension 1 are filled;
// recurrent mixers replace their tensors whole.
struct OpState {
  at::Tensor keys, values;     // [heads, room, dim]
  at::Tensor recurrent, conv;  // of the last token
};

// What the routers of a layer ask of its attention: the shares of the keys, averaged over the heads.
struct AttentionRows {
  int64_t window = 0;  // 0: nobody asks
  at::Tensor shares;   // [tokens, window]: [o] of the key o tokens back

  // probabilities: [heads, queries, keys]. token: of the first query in the step; position: in the sequence; begin: of the
  // first key.
  void take(const at::Tensor& probabilities, int64_t token, int64_t position, int64_t begin);
};

// What the gradient lens keeps of a routing row between forward and backward: the routed output, whose gradient
// backward() leaves, and how to get the gains from it.
struct LensRow {
  at::Tensor routed;  // [tokens, hidden], before scales that follow
  at::Tensor logits;  // [tokens, E] under their edits
  at::Tensor selected;
  std::function<at::Tensor(const at::Tensor& gradient)> gains;  // [tokens, E]
};

// h: the residual stream [tokens, hidden] there.
using ShowStream = std::function<void(const LayerProbe::Place& place, const at::Tensor& h)>;

// The tokens in hand.
struct Step {
  int64_t past = 0;    // tokens of this side (encoder or decoder) before them
  int64_t length = 0;  // tokens by which a rope that grows with the sequence goes; at least past + tokens
  const Recipe* recipe = nullptr;
  std::span<const TokenId> tokens;
  uint64_t first_index = 0;        // of the first token in the sequence, the encoder's included
  uint32_t stream = 0;             // see ForwardRequest
  std::span<RoutingFrame> frames;  // empty: no capture
  int row = -1;                    // the sublayer's routing row; -1: none
  // Of the run; null where no scheme can be in force.
  RouterStates* states = nullptr;
  TokenMemory* routers = nullptr;
  RouterTap* tap = nullptr;
  // What the op's output, times this scale, is added to; null: to nothing as it is.
  const at::Tensor* residual = nullptr;
  float scale = 1;
  AttentionRows* attention = nullptr;  // of the layer: filled by its attention, read by its routers
  int pass = 0;                    // of the router's decisions for these tokens in this pass of the layer
  SequenceChoices* choices = nullptr;  // of the sequence; null where no scheme runs
  UnitTap* units = nullptr;            // see ForwardRequest
  int place = 0;                       // of the sublayer's first linear (engine/model/linears.h)
  uint64_t prompt = 0;                 // see ForwardRequest
  AdapterLog* adapter_log = nullptr;
  std::span<const AdapterRow> adapter_rows;  // of the frames
  int model_routers = 0;           // rows of the plan
  int layer_pass = 0;              // through the layer, from 0
  std::span<const uint8_t> experts_off;  // see ForwardRequest
  // Gradients only, else null: the logit bias of every routing row [E], leaves of the graph.
  const std::vector<at::Tensor>* biases = nullptr;
  // Shown the residual stream behind every sublayer; null: nobody looks.
  const ShowStream* see = nullptr;
  std::vector<LensRow>* lens = nullptr;  // [routing rows], with biases only; null: not wanted
  at::Tensor memory;               // decoder only: the encoder's output [tokens, hidden], for cross-attention

  // A number of its own for each pass of a router.
  int row_in_pass() const { return layer_pass * model_routers + row; }
};

class Op {
 public:
  virtual ~Op() = default;
  // x: [tokens, hidden], already normed; returns the same shape.
  virtual at::Tensor run(const at::Tensor& x, OpState& state, const Step& step) const = 0;
  // Of a routed feed-forward block: [tokens, E, hidden], what each expert gives. Undefined: it has no such experts.
  virtual at::Tensor all_experts(const at::Tensor&) const { return {}; }
};

// For frames with taps, see Taps in frame.h. y: [rows, hidden], what the expert gave for those tokens, before its weight;
// routed: [tokens, hidden], what the routed experts add.
void note_norms(const Step& step, size_t expert, std::span<const int64_t> rows, const at::Tensor& y);
void note_block(const Step& step, const at::Tensor& routed);

// May throw LoadError, c10::Error, bad_alloc.
std::unique_ptr<Op> make_op(const SublayerOp& spec, Loader& load);

std::unique_ptr<Op> make_attention(const AttentionSpec& spec, Loader& load);
std::unique_ptr<Op> make_latent_attention(const LatentAttentionSpec& spec, Loader& load);
std::unique_ptr<Op> make_mixture_attention(const MixtureAttentionSpec& spec, Loader& load);
std::unique_ptr<Op> make_lightning(const LightningSpec& spec, Loader& load);
std::unique_ptr<Op> make_delta_net(const DeltaNetSpec& spec, Loader& load);
std::unique_ptr<Op> make_mamba(const MambaSpec& spec, Loader& load);
std::unique_ptr<Op> make_short_conv(const ShortConvSpec& spec, Loader& load);
std::unique_ptr<Op> make_ffn(const FfnSpec& spec, Loader& load);
std::unique_ptr<Op> make_moe(const MoeSpec& spec, Loader& load);

}  // namespace switchyard::reference

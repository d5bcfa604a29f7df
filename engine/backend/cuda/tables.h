// What host and kernels of the cuda backend both see: matrices by pointer, the recipe table of a layer, the scalars of
// a step, the record of a decision. Plain values; pointers are the device's. No LibTorch, no CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/base/ids.h"
#include "engine/routing/decision.h"

namespace switchyard::cuda {

enum class Stored : uint8_t { kF32, kBF16, kF16 };
constexpr int stored_bytes(Stored type) {
  return type == Stored::kF32 ? 4 : 2;
}

// [rows, cols], rows one after the other. May lie in pinned host memory: a row is read once for a token either way.
struct Matrix {
  const unsigned char* data = nullptr;
  int rows = 0, cols = 0;
  Stored type = Stored::kF32;
};

// y = x / sqrt(mean(x^2) + eps) * weight, or the layer norm with its bias. No weight: x itself.
struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
  bool centred = false;  // layer norm
};

// cos and sin of position * frequency, [positions, dims / 2] each, made on the host in the cpu backend's arithmetic.
struct Rope {
  const float* cosines = nullptr;  // null: none
  const float* sines = nullptr;
  int dims = 0;
  bool interleaved = false;  // pairs (2i, 2i + 1), else (i, i + dims / 2)
};

inline constexpr int kKeyBlock = 64;  // tokens of a block of keys

// What changes from token to token, in device memory: one captured graph serves all tokens and all branches.
struct StepState {
  int32_t position = 0;  // of the first token of the step
  int32_t count = 1;     // tokens of the step
  uint32_t sequence = 0;
  uint32_t reserved = 0;
  uint64_t record = 0;                     // number of the first token's record in the ring, counted from 0 without end
  unsigned char* const* blocks = nullptr;  // of keys and values: [capacity / kKeyBlock]
  int32_t* tokens = nullptr;               // [count]
};

// Keys and values of one attention sublayer within a block: [kv_heads][kKeyBlock][dim] each.
struct KeyPlace {
  size_t keys = 0,
         values = 0;  // bytes from the block's start; equal: latents, whose first value_dim numbers are the values
  int kv_heads = 0, head_dim = 0, value_dim = 0;
  Stored type = Stored::kF32;  // or kBF16
};

// How the layer chooses: everything of a LayerRecipe and of its scheme that decides, with the model's own rule where no
// scheme does. The host writes it to a pinned page, and a copy in front of a token's first kernel brings it in: all of
// an edit takes effect between two tokens. Flat, so that a page of layers is one copy.
enum class GateMode : uint8_t { kNative, kScheme, kReplay };
struct GateFlags {
  static constexpr uint8_t kEdited = 1;  // a recipe is in force: the native choice is looked at for `changed`
  static constexpr uint8_t kGumbel = 2;
  static constexpr uint8_t kSelectBias = 4;  // some edit of the selection bias is not 0
};
struct alignas(16) GateTable {
  GateMode mode = GateMode::kNative;
  ScoreFn score = ScoreFn::kSoftmaxAll;
  GroupScore group_score = GroupScore::kMax;
  GroupFill group_fill = GroupFill::kZero;
  Renorm renorm = Renorm::kNone;
  ApplyTo apply = ApplyTo::kOutput;
  uint8_t flags = 0;
  SchemeScore scheme_score = SchemeScore::kSoftmax;
  Selector selector = Selector::kTopK;
  LogitActivation activation = LogitActivation::kNone;
  TemperatureSchedule schedule = TemperatureSchedule::kNone;
  WeightRule weight_rule = WeightRule::kRaw;
  NullSource null_source = NullSource::kCopy;
  EntropyKind entropy = EntropyKind::kTsallis;
  Granularity granularity = Granularity::kToken;
  OutRule out = OutRule::kSame;
  uint16_t experts = 0, groups = 1, groups_kept = 1, nulls = 0, forced_low = 0;
  uint16_t native_k = 0, k = 0, k_min = 1, k_max = 0;  // k: in force
  uint16_t slots = 0;                                  // room of a decision
  uint16_t columns = 0, on = 0, off = 0, spare = 0;
  uint32_t epoch = 0;
  int32_t steps = 1, guaranteed = -1;
  uint32_t replayed = 0;  // tokens of the record
  float temperature = 1, p = 0, threshold = 0, tau = 1, tau_end = 1, h = 0, q = 1, eps = 0;
  float scale = 1, renorm_floor = 0, jitter = 0, null_logit = 0, sdm_q = 0, sdm_d = 1, steer_margin = 0;
  uint64_t seed = 0;
  // [experts] each, or null.
  const float* row_scale = nullptr;
  const float* logit_bias = nullptr;
  const float* edit_bias = nullptr;    // of the selection, by edits
  const float* select_bias = nullptr;  // of the selection, the checkpoint's
  const float* router_bias = nullptr;
  const float* output_scale = nullptr;
  const uint8_t* muted = nullptr;
  const uint8_t* forced = nullptr;
  const ExpertId* table = nullptr;    // [vocab, columns] by token id; of a replay [replayed, columns]
  const float* numbers = nullptr;     // thresholds [experts]; of a replay weights [replayed, columns]
  const uint8_t* kinds = nullptr;     // of a replay [replayed, columns]
  const TokenId* tokens = nullptr;    // of a replay [replayed]
  const ExpertId* steered = nullptr;  // [on + off]
  uint64_t reserved[2] = {};
};
static_assert(sizeof(GateTable) == 256, "engine.md section 7: one 256-byte table a layer");

// What a token's decision leaves in the ring, at `row * stride` of its record. Offsets in bytes; the level of capture
// leaves out what it does not ask for (RecordPlace::ids and the others null).
struct RecordHead {
  DecisionStats stats;
  uint16_t k_used = 0, nulls = 0, changed = 0;
  uint8_t had_nan = 0, reserved = 0;
  uint32_t epoch = 0;
  uint32_t written = 0;  // 1 + low bits of the record's number: the drain checks that the slot is of its token
};
struct RecordLayout {
  int rows = 0, experts = 0, slots = 0;
  uint32_t ids = 0, weights = 0, kinds = 0, logits = 0;  // offsets in a row; 0: not captured
  uint32_t row_bytes = 0;
  constexpr size_t token_bytes() const { return size_t(rows) * row_bytes; }
};
struct Ring {
  unsigned char* records = nullptr;  // [tokens][rows]; null: no capture
  uint32_t tokens = 0;
  RecordLayout layout;
};

// Who runs for a token: executed slots by rising expert id, so that sums have one order.
struct Chosen {
  int32_t* count = nullptr;     // [tokens]
  ExpertId* experts = nullptr;  // [tokens, slots]
  float* weights =
      nullptr;  // [tokens, slots] of the output: routing weight (where it multiplies the output) times expert_scale
  float* inputs = nullptr;  // [tokens, slots] of the input
  int slots = 0;
};

enum class Unit : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };
enum class Form : uint8_t { kGlu, kGluOss, kMlp };
struct FfnForm {
  Form form = Form::kGlu;
  Unit unit = Unit::kSilu;
  int width = 0;
  float limit = 0, alpha = 0;
};

// A feed-forward block by pointer. One table [experts] a layer: swaps and clones are other pointers, experts that stay
// in host memory are host pointers.
struct Expert {
  const unsigned char *gate = nullptr, *up = nullptr, *down = nullptr;
  const float *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
  const uint8_t* units_off = nullptr;  // [width]: hidden units that are off; null: none
  Stored type = Stored::kF32;          // of gate and up
  Stored down_type = Stored::kF32;
};

}  // namespace switchyard::cuda

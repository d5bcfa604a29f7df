// The schema of *.moetrace.h5 in one place: names, types, axes, version (specs/analyses.md section 2,
// formats.md section 6). Used by the writer, the reader, verify and recover; no state.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/routing/frame.h"
#include "engine/trace/h5.h"
#include "engine/trace/trace.h"

namespace switchyard::schema {

inline constexpr char kName[] = "moe-trace";
inline constexpr uint32_t kVersion = 1;
inline constexpr uint64_t kBlockTokens = 4096;              // a checksum covers at most so many tokens
inline constexpr uint64_t kBlockBytes = uint64_t(64) << 20;  // and, as we write, so many bytes
inline constexpr char kSuffix[] = ".moetrace.h5";

// [N], [L, N], [L, N, k], [L - 1, N, k] (of row 1 and later), [L, N, E].
enum class Axes : uint8_t { kToken, kRow, kSlot, kNextSlot, kExpert };
inline bool has_slots(Axes axes) { return axes == Axes::kSlot || axes == Axes::kNextSlot; }
enum class Stored : uint8_t { kU8, kU32, kExpertId, kF32 };  // kExpertId: u8 iff E <= 255, else u16
enum class Quantity : uint8_t {
  kTokenId, kPosition, kPhase, kRecipeEpoch, kExpertId, kWeight, kSlotKind, kEntropy, kTopkMass, kMargin, kLse, kLogits,
  kOutNorm, kBlockCos, kPredGate,
};

// One recorded dataset.
struct Field {
  const char* path;
  Quantity quantity;
  Axes axes;
  Stored stored;
  CaptureLevel from;  // recorded at this level and above
  const char* long_name;
  const char* units;
  uint8_t tap = 0;  // of Taps: recorded where it is asked for
};

inline constexpr Field kFields[] = {
    {"/tokens/token_id", Quantity::kTokenId, Axes::kToken, Stored::kU32, CaptureLevel::kIds,
     "token id in the model's vocabulary", "1"},
    {"/tokens/position", Quantity::kPosition, Axes::kToken, Stored::kU32, CaptureLevel::kIds,
     "position in the sequence, from 0", "token"},
    {"/tokens/phase", Quantity::kPhase, Axes::kToken, Stored::kU8, CaptureLevel::kIds,
     "0 prefill, 1 decode", "1"},
    {"/tokens/recipe_epoch", Quantity::kRecipeEpoch, Axes::kToken, Stored::kU32, CaptureLevel::kIds,
     "edit state in force, see /epochs", "1"},
    {"/routing/expert_id", Quantity::kExpertId, Axes::kSlot, Stored::kExpertId, CaptureLevel::kIds,
     "selected experts by falling applied weight, then lower id; all ones: empty slot", "1"},
    {"/routing/weight", Quantity::kWeight, Axes::kSlot, Stored::kF32, CaptureLevel::kWeights,
     "routing weight as applied, routed scaling included", "1"},
    {"/routing/slot_kind", Quantity::kSlotKind, Axes::kSlot, Stored::kU8, CaptureLevel::kWeights,
     "0 routed, 1 forced, 2 null, 3 dropped", "1"},
    {"/routing/entropy", Quantity::kEntropy, Axes::kRow, Stored::kF32, CaptureLevel::kWeights,
     "entropy of the softmax over all experts, as decided", "nat"},
    {"/routing/topk_mass", Quantity::kTopkMass, Axes::kRow, Stored::kF32, CaptureLevel::kWeights,
     "softmax probability of the selected experts, as decided", "1"},
    {"/routing/margin", Quantity::kMargin, Axes::kRow, Stored::kF32, CaptureLevel::kWeights,
     "lowest selected minus highest unselected logit, as decided", "logit"},
    {"/routing/lse", Quantity::kLse, Axes::kRow, Stored::kF32, CaptureLevel::kWeights,
     "ln sum exp of the raw router logits", "nat"},
    {"/routing/router_logits", Quantity::kLogits, Axes::kExpert, Stored::kF32, CaptureLevel::kLogits,
     "raw router logits, before edits", "logit"},
    {"/routing/out_norm", Quantity::kOutNorm, Axes::kSlot, Stored::kF32, CaptureLevel::kIds,
     "Euclidean norm of what the slot's expert gave, before weight and scale; 0: it did not run", "1", Taps::kOutNorm},
    {"/routing/block_cos", Quantity::kBlockCos, Axes::kRow, Stored::kF32, CaptureLevel::kIds,
     "cosine of the residual stream before and after the routed experts' part is added", "1", Taps::kBlockCos},
    {"/routing/pred_gate_id", Quantity::kPredGate, Axes::kNextSlot, Stored::kExpertId, CaptureLevel::kIds,
     "what the next row's router would choose for the input of this row's; all ones: empty slot", "1", Taps::kPredGate},
};
std::vector<const Field*> fields_of(CaptureLevel capture);
std::vector<const Field*> fields_of(const TraceHeader& header);  // those it names, or all of its capture level and taps
const Field* find_field(std::string_view path);

// Extents of a trace. `slots` may grow, the rest is fixed.
struct Shape {
  int layers = 0, experts = 0, slots = 0;

  uint64_t width(Axes axes) const {  // values of one token in one layer
    return has_slots(axes) ? uint64_t(slots) : axes == Axes::kExpert ? uint64_t(experts) : 1;
  }
  // Of the field; the first of kNextSlot belongs to routing row 1.
  uint64_t rows(Axes axes) const { return axes == Axes::kToken ? 1 : axes == Axes::kNextSlot ? uint64_t(std::max(layers, 1) - 1) : uint64_t(layers); }
};
hid_t file_type(Stored stored, int experts);  // borrowed, little-endian
size_t bytes_of(Stored stored, int experts);
// What an unwritten slot reads as: all ones for ids, zero for the rest.
uint64_t fill_of(Stored stored);
size_t bytes_per_token(const std::vector<const Field*>& fields, const Shape& shape);
uint64_t tokens_per_block(const std::vector<const Field*>& fields, const Shape& shape);

// Aggregates, filled at a clean close. Pair matrices are left out where one would exceed this.
inline constexpr uint64_t kPairMatrixBytes = uint64_t(256) << 20;
inline bool has_pair_matrices(int layers, int experts) {
  return uint64_t(layers) * experts * experts * 8 <= kPairMatrixBytes;
}

// Histograms of activations in windows of m tokens (A8), and of the experts of token ids (A5): left out where they would take more.
inline constexpr int kSrpWindows[] = {4, 16, 64, 256};
inline constexpr uint64_t kSumBytes = uint64_t(64) << 20;
inline constexpr uint64_t kVocabularyLeast = 8;  // occurrences of an id that is counted
inline bool has_srp(const Shape& shape, size_t domains, int m) {
  return std::max<uint64_t>(domains, 1) * uint64_t(shape.layers) * uint64_t(shape.experts) * uint64_t(m + 1) * 8 <= kSumBytes;
}

// A dump that holds counts and no rows becomes a file of /agg, /meta and /model alone, with the attribute
// counts_only = 1: no /tokens, /routing, /sequences, /epochs and /commit. k and n_tokens are 0 where the dump
// does not tell them. bookkeeping_crc32c covers these sums too. Everything else that reads it is told by name
// what is not there.
enum class Sum : uint8_t { kCount, kPassCount, kWeightSum, kEanSum, kReapSum, kMaxAct };
struct SumField {
  const char* path;
  Sum sum;
  bool per_pass;  // [pass, layer, expert], else [layer, expert]
};
inline constexpr SumField kSums[] = {
    {"/agg/count", Sum::kCount, false},        {"/agg/pass_count", Sum::kPassCount, true},
    {"/agg/weight_sum", Sum::kWeightSum, false}, {"/agg/ean_sum", Sum::kEanSum, false},
    {"/agg/reap_sum", Sum::kReapSum, false},   {"/agg/max_act", Sum::kMaxAct, false},
};
Result<void> create_counts(hid_t file, const TraceHeader& header, const TraceCounts& counts);

// Everything that cannot be added once a file is in SWMR mode: groups, datasets, scales, attributes, texts.
struct Options {
  int chunk_rows = 1024;
  bool packed = false;  // recorded datasets with shuffle and deflate 1
  bool half = false;    // reals as 16-bit floats; their attribute reduced_from says "float32"
};
constexpr uint64_t kPackedChunkBytes = uint64_t(4) << 20;  // of logits in a packed file
h5::Id half_type();  // little-endian IEEE binary16, as h5py writes it
Result<void> create(hid_t file, const TraceHeader& header, const Options& options);

}  // namespace switchyard::schema

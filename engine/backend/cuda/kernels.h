// What each kernel is told, and the functions that launch them: host code sees no CUDA. Pointers are the device's.
// Compiled by nvcc for the module, and by g++ on the block emulator for the tests (tests/cuda_on_cpu). Launches are
// asynchronous in the stream; an error stays in it. Engine thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cuda/stream.h"
#include "engine/backend/cuda/tables.h"
#include "engine/model/plan.h"

namespace switchyard::cuda {

inline constexpr int kMostParts = 4;

// Matrices that read the same vector, one under the other.
struct Projection {
  const float* in = nullptr;  // [cols]
  int cols = 0;
  Norm norm;                       // of the input
  const float* columns = nullptr;  // [cols]: multiplies the input, after the norm; null: ones
  float* normed = nullptr;         // [cols]: gets the input as normed; null: nobody asks
  Matrix parts[kMostParts];
  const float* bias[kMostParts] = {};  // [rows] or null
  int count = 0;
  float* out = nullptr;  // [rows of all parts]
  bool adds = false;     // out += factor * y, else out = factor * y
  float factor = 1;

  constexpr int rows() const {
    int sum = 0;
    for (int i = 0; i < count; ++i) sum += parts[i].rows;
    return sum;
  }
};

// A small matrix for each head, times that head's part of a vector: absorbed queries and values of latent attention.
struct HeadProjection {
  const float* in = nullptr;  // [tokens][heads] of in_step numbers, cols of which are read
  float* out = nullptr;       // [tokens][heads] of out_step numbers
  Matrix matrix;              // rows of a head: first + head * rows_apart ... + rows
  int heads = 0, rows = 0, first = 0, rows_apart = 0, in_step = 0, out_step = 0;
};

struct HeadJob {
  const float* qkv = nullptr;  // [tokens][step]: queries, keys, values
  int step = 0;
  float* queries = nullptr;  // [tokens][heads * head_dim]
  int heads = 0;
  KeyPlace place;
  QkNorm qk_norm = QkNorm::kNone;
  Norm query_norm, key_norm;
  float clip = 0;
  Rope rope;
  float temperature_floor = 0, temperature_scale = 0;  // llama4: of the query
};

// Latent attention: the key's latent is normed and its rope slice turned, each query's rope slice is turned into its
// place behind the absorbed part, whose product project_heads() makes.
struct LatentJob {
  const float* first = nullptr;  // [tokens][step]: latent, key's rope slice at 0
  int step = 0;
  float* queries = nullptr;   // [tokens][heads][nope + rope]: scaled in place
  float* absorbed = nullptr;  // [tokens][heads][latent + rope]
  int heads = 0, nope = 0, rope_dims = 0;
  KeyPlace place;  // head_dim latent + rope, value_dim latent
  Norm latent_norm;
  Rope rope;
  float query_scale = 1, latent_scale = 1;
};

struct AttendJob {
  const float* queries = nullptr;  // [tokens][heads][head_dim]
  float* out = nullptr;            // [tokens][heads][value_dim]
  int heads = 0;
  KeyPlace place;
  float scale = 1;
  int window = 0, chunk = 0;     // see AttentionSpec
  const float* sinks = nullptr;  // [heads] or null
  // Room for what the stretches give: [tokens][heads][splits] of value_dim + 2 numbers; counters [tokens][groups],
  // zero.
  float* partial = nullptr;
  unsigned* arrived = nullptr;
};

// What a layer's router does for each token.
struct RouteJob {
  const GateTable* tables = nullptr;  // of the step, [rows]
  int row = 0;                        // of frames
  const float* logits = nullptr;      // [tokens, experts] without the router's bias
  float* biased = nullptr;            // [tokens, experts]: gets the bias
  int width = 0, slots = 0;           // room of a decision: the most that a recipe in force asks for
  Chosen chosen;
  Ring ring;
};

struct ExpertJob {
  const Expert* experts = nullptr;  // [experts]
  FfnForm form;
  Chosen chosen;
  const Expert* shared = nullptr;  // of every token; null: none
  FfnForm shared_form;
  const float* shared_gate = nullptr;  // [tokens]: logit that its output is gated with; null: none
  const float* in = nullptr;           // [tokens, hidden], normed
  int hidden = 0;
  float* units = nullptr;              // [slots + 1][width]: the chosen experts' hidden units, then the shared block's
  int width = 0;                       // the larger of both
  const float* output_bias = nullptr;  // [hidden] or null
  float* out = nullptr;                // [hidden], added to
  float factor = 1;
};

struct TileJob {
  const float* in = nullptr;  // [tokens, cols]
  int tokens = 0;
  Matrix matrix;
  const float* bias = nullptr;
  float* out = nullptr;  // [tokens][step], columns from `at`
  int step = 0, at = 0;
  bool adds = false;
  float factor = 1;
};

// Slots by expert: starts[e] ... starts[e + 1] are those of expert e, by rising token.
struct Sorted {
  int32_t* counts = nullptr;  // [experts]
  int32_t* starts = nullptr;  // [experts + 1]
  int32_t* tokens = nullptr;  // [tokens * slots] of each sorted slot
  float* inputs = nullptr;    // [tokens * slots]
  int32_t* places = nullptr;  // [tokens, slots]: where a token's slot went
};

struct GroupJob {
  const Expert* experts = nullptr;  // [groups]: of the routed ones by id, or the shared block alone
  FfnForm form;
  bool bf16 = false;                // all matrices that it reads are: on the tensor cores
  const int32_t* starts = nullptr;  // null: one group of all tokens
  const int32_t* rows = nullptr;    // token of each slot; null: the slot's own number
  const float* weights = nullptr;   // of the input, of each slot; null: ones
  int tokens = 0;                   // of that one group
  const float* in = nullptr;        // [tokens] of `step` numbers, cols of which are read
  int cols = 0;
  int step = 0;          // 0: cols
  float* out = nullptr;  // [slots, rows of the matrix]
};

// The weighed sum of a token's slots, by rising expert id, and the shared block onto the residual stream.
struct CombineJob {
  Chosen chosen;
  const int32_t* places = nullptr;  // null: no routed experts
  const float* routed = nullptr;    // [slots, hidden]
  const float* shared = nullptr;    // [tokens, hidden] or null
  const float* shared_gate = nullptr;
  const float* output_bias = nullptr;
  int hidden = 0;
  float* out = nullptr;  // [tokens, hidden]
  float factor = 1;
};

// As Sampling (engine/runtime/sampler.h).
struct Sampler {
  bool greedy = true;
  float temperature = 1, top_p = 1;
  int32_t top_k = 0;
  uint64_t seed = 0;
};

struct PickJob {
  const float* logits = nullptr;  // [vocab]
  int vocab = 0;
  const Sampler* sampler = nullptr;
  StepState* state = nullptr;  // of the step that gave the logits; becomes that of the next one
  int32_t* chosen = nullptr;   // [capacity]: chosen[position] = the id chosen for it
};

// Units that attention can take on: dims of a key at most, and query heads of a key head that one block serves.
inline constexpr int kMostKeyDims = 576;
// Bytes of shared memory that a block may have on every device that we run on (sm_80: 163 KiB).
inline constexpr int kMostShared = 160 * 1024;

void launch_embed(Stream& stream, const StepState* state, const Matrix& table, float scale, float* hidden, int tokens);
void launch_norm_rows(Stream& stream, const float* in, const Norm& norm, int n, float* normed, int tokens);
void launch_project(Stream& stream, const Projection& job);
void launch_project_heads(Stream& stream, const HeadProjection& job, int tokens);
void launch_finish_heads(Stream& stream, const StepState* state, const HeadJob& job, int tokens);
void launch_finish_latents(Stream& stream, const StepState* state, const LatentJob& job, int tokens);
// splits: stretches of keys at most; more than one needs job.partial and job.arrived.
void launch_attend(Stream& stream, const StepState* state, const AttendJob& job, int splits, int tokens);
// shares [tokens, window]: what part of a query's attention, averaged over the heads, falls on the key o tokens back. To be
// launched after launch_attend(), which it repeats the scores of.
void launch_attend_shares(Stream& stream, const StepState* state, const AttendJob& job, int window, float* shares,
                          int tokens);
unsigned attend_groups(const AttendJob& job);  // blocks of one split and token: counters of job.arrived
// The router of a step of one token: job.logits is router.out. arrived: one counter, zero.
void launch_route(Stream& stream, const StepState* state, const Projection& router, const RouteJob& job,
                  unsigned* arrived);
// Decisions of many tokens, whose logits are there.
void launch_route_rows(Stream& stream, const StepState* state, const RouteJob& job, int tokens);
void launch_expert_units(Stream& stream, const ExpertJob& job);
void launch_expert_down(Stream& stream, const ExpertJob& job);
// Products of many tokens: bf16 matrices on the tensor cores, others as fp32 tiles.
void launch_multiply_tiles(Stream& stream, const TileJob& job);
void launch_sort_slots(Stream& stream, const Chosen& chosen, int tokens, int experts, const Sorted& sorted);
void launch_group_units(Stream& stream, const GroupJob& job, int groups, int most_rows);
void launch_group_down(Stream& stream, const GroupJob& job, int hidden, int groups, int most_rows);
void launch_combine(Stream& stream, const CombineJob& job, int tokens);
void launch_pick(Stream& stream, const PickJob& job);
// done: of pinned host memory as the device sees it.
void launch_tell_host(Stream& stream, const StepState* state, uint64_t* done);

}  // namespace switchyard::cuda

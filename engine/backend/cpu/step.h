// One chunk of tokens on its way through the layers, and the means to work on it: matrix products shared
// out to the pool, one barrier each; small ones run on the engine thread alone.
// Used by the executor and its sublayers on the engine thread.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_cache.h"
#include "engine/backend/cpu/model.h"
#include "engine/backend/cpu/rotations.h"
#include "engine/base/thread_pool.h"
#include "engine/routing/adapter_rows.h"

namespace switchyard::cpu {

// Tokens that follow those in the cache.
struct Chunk {
  std::span<const TokenId> tokens;
  BlockCache* cache = nullptr;  // extended by this many tokens
  const Recipe* recipe = nullptr;
  std::span<RoutingFrame> frames;     // empty, or one per token
  LogitRows rows = LogitRows::kNone;  // kLast: of the chunk's last token
  float* logits = nullptr;            // [1 or tokens, vocab]
  const Task* task = nullptr;
  int length = 0;       // of the sequence, see ForwardRequest::sequence
  uint64_t prompt = 0;  // see ForwardRequest
  AdapterLog* adapter_log = nullptr;
  std::span<const AdapterRow> adapter_rows;  // of the frames
  uint32_t stream = 0;
  RouterTap* tap = nullptr;
  UnitTap* units = nullptr;
  size_t first = 0;     // place of the first token in the request
  int routers = 0;                       // of the model
  int first_layer = 0, end_layer = 0;    // see ForwardRequest; of the model: all
  float* hidden = nullptr;               // [tokens, hidden], in and out; null: all layers
  std::span<const uint8_t> experts_off;  // see ForwardRequest
};

// A matrix times the tokens, one of several that share a phase.
struct Product {
  const Matrix* matrix;
  TokenRows tokens;
};

// Where a sublayer's output goes: rows[token] += factors[token] * y, all factors being `factor`.
struct Sum {
  float* const* rows = nullptr;
  const float* factors = nullptr;
  float factor = 1;
};

inline int64_t stored_size(const Matrix& matrix) {
  return matrix.rows * row_bytes(matrix);
}

// What the routers of a layer ask of its attention: the shares of the keys, averaged over the heads.
struct AttentionRows {
  int window = 0;  // 0: nobody asks
  Rows shares;     // [tokens, window]: [o] of the key o tokens back
};
class AdapterRun;  // engine/backend/cpu/adapters.h

struct Step {
  Step(const Kernels& the_kernels, ThreadPool& the_pool, const std::vector<RopeSpec>& ropes)
      : kernels(the_kernels), pool(the_pool), rotations(ropes) {}

  void begin(const Chunk& next);

  void normalise(const Norm& norm, const float* x, float* out, int64_t n) const;
  void multiply(std::span<const Product> products) const;
  // Before the pool runs pack() or dot_rows(): makes room for every worker, so that none allocates later.
  void make_room(Stored type, int count, int64_t cols) const;
  // Rows [begin, end) of a matrix times tokens that are not packed; inside the pool, of its worker.
  void dot_rows(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens, int worker = 0) const;
  // The inputs in the order the kernels read them, nullptr: as they are. Stands until the worker's next call.
  const float* pack(Stored type, const float* const* x, int count, int64_t cols, int worker) const;
  // The same into a place of packed_floats() floats, shared out to the pool.
  void pack_into(float* place, Stored type, const float* const* x, int count, int64_t cols) const;
  // Fills `packed_inputs` for products, packing what several share once.
  void pack_inputs(std::span<const Product> products) const;
  // Adds a bias to every token of a sum.
  void add_bias(const std::vector<float>& bias, const Sum& sum) const;
  // Parts worth making of a phase that reads `bytes`; 1: not worth a barrier.
  int parts_for(int64_t bytes) const;
  // body(token, worker) for the tokens from `first` on.
  template <class Body>
  void for_tokens(int64_t bytes_per_token, Body&& body, int first = 0) const;

  // Where the pass in hand keeps its keys; a number of its own for each pass of a router.
  int part(const KeyShape& keys) const { return chunk->cache->layout()->part(keys.cache, pass); }
  int row_in_pass(int row) const { return pass * chunk->routers + row; }

  const Kernels& kernels;
  ThreadPool& pool;
  const Chunk* chunk = nullptr;
  int count = 0;     // tokens
  int position = 0;  // of the first
  AdapterRun* adapters = nullptr;  // never null while a chunk runs
  int pass = 0;      // through the layer in hand, from 0
  Rotations rotations;
  mutable std::vector<AlignedFloats> packed;  // per worker
  mutable std::vector<AlignedFloats> inputs;  // of the products at hand
  mutable std::vector<const float*> packed_inputs;
  AttentionRows* attention = nullptr;  // filled by the layer's attention, read by its routers
};

template <class Body>
void Step::for_tokens(int64_t bytes_per_token, Body&& body, int first) const {
  const int tokens = count - first, parts = std::min(tokens, parts_for(bytes_per_token * tokens));
  pool.run(parts, [&](int part, int worker) {
    const RowRange own = split_rows(tokens, parts, part);
    for (int token = first + int(own.begin); token < first + int(own.end); ++token) body(token, worker);
  });
}

// `count` row pointers to one buffer of [count, cols].
template <class Pointer>
void shape_rows(int count, int64_t cols, Rows& rows, std::vector<Pointer>& pointers) {
  rows.shape(count, cols);
  pointers.resize(count);
  for (int row = 0; row < count; ++row) pointers[row] = rows[row];
}

}  // namespace switchyard::cpu

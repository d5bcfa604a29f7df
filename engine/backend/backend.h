// Executing a plan. One engine thread calls forward(); a backend may use worker threads inside.
// Backends: `reference` (LibTorch, fp32, the judge; a module loaded at run time) and `cpu` (own kernels).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"
#include "engine/routing/frame.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// What a model keeps of one sequence: keys and values, and the state of recurrent mixers. Append-only but for
// truncate(); owned by the engine thread. Of an encoder-decoder it counts the encoder's tokens, then the decoder's.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int length() const = 0;             // tokens held
  virtual int capacity() const = 0;           // tokens it may hold
  // Forgets tokens from `length` on and returns how many are left: `length`, or an earlier place; the caller runs the
  // tokens from there again. Earlier is, where the plan is recurrent, the nearest whose state was kept (0 always is),
  // and 0 in the midst of an encoder's tokens.
  virtual int truncate(int length) = 0;
  virtual std::unique_ptr<KvCache> clone() const = 0;
  virtual uint64_t bytes() const = 0;
  // The layer path of its tokens (Recipe::passes), taken from the recipe of the first; a later one may not differ.
  virtual std::span<const uint8_t> path() const = 0;
};

enum class LogitRows : uint8_t { kNone, kLast, kAll };

// Sees what routers read, in the order of execution; called on the engine thread within forward().
class RouterTap {
 public:
  virtual ~RouterTap() = default;
  // token: place in the request's tokens. input: [width], valid during the call.
  virtual void see(int row, size_t token, std::span<const float> input) = 0;
};

// Sees the hidden units of experts as they run: what the down projection takes, masks and slices applied. Engine thread.
class UnitTap {
 public:
  virtual ~UnitTap() = default;
  // token: of the request. Only of feed-forward blocks; of experts in the attention there are none.
  virtual void take(int row, ExpertId expert, int token, std::span<const float> units) = 0;
};

struct ForwardRequest {
  std::span<const TokenId> tokens;   // appended to the cache, in order; ids < vocab
  // Encoder-decoder only: these are the encoder's tokens, all of them, into an empty cache; no logits. Every later
  // call is for the decoder, whose positions begin at 0. A frame holds the rows of its own side only.
  bool encode = false;
  KvCache* cache = nullptr;
  const Recipe* recipe = nullptr;    // never null
  // Tokens the sequence will have once its whole prompt is in: a prompt run in pieces then has the rope of one run
  // in one piece, where the rope depends on the length (RopeGrowth). Less than after this call: counts as that.
  int sequence = 0;
  int prompt = 0;                    // tokens of the sequence's prompt; 0: all are of it
  uint32_t stream = 0;               // the sequence's number; keys the random choices of gating schemes
  LogitRows rows = LogitRows::kLast;
  std::span<float> logits;           // [1 or tokens, vocab], as `rows` says
  AdapterLog* adapter_log = nullptr; // takes what adapter routers decide; null: nobody asks
  // A part of a decoder: layers [first_layer, end_layer) alone, on the residual stream `hidden` [tokens, hidden], which is
  // replaced by what they make of it; from layer 0 on the embeddings are its start. The cache then holds the keys of these
  // layers only. No logits but where the part ends with the last layer. Empty: all layers.
  int first_layer = 0, end_layer = -1;  // -1: to the last
  std::span<float> hidden;
  // [model layers], or empty: where 1, the sublayer of routed experts (and what is shared beside them) adds nothing.
  std::span<const uint8_t> experts_off;
  std::span<RoutingFrame> frames;    // empty: no capture; else [tokens], shaped by the caller
  RouterTap* tap = nullptr;
  const Task* task = nullptr;        // checked for cancellation between layers and chunks; may be null
  UnitTap* units = nullptr;          // null: nobody looks
};

struct BackendInfo {
  std::string name;    // "cpu"
  std::string detail;  // "AVX-512 BF16, 2 threads"
  std::string note;    // why this backend stands in for another; usually empty
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo info() const = 0;
  virtual std::unique_ptr<KvCache> new_cache(int capacity) const = 0;
  // On error the cache is as before the call.
  virtual Result<void> forward(const ForwardRequest& request) = 0;
  // Takes effect at the next forward(); 0 = one per core.
  virtual void set_threads(int threads) = 0;
};

struct BackendOptions {
  int threads = 0;  // 0: one per core
  int context = 0;  // tokens that its caches will hold: counted in the check that all fits in memory
  std::vector<uint8_t> passes;  // the layer path that they will run (Recipe::passes), counted too
};

// What a plan would take, in bytes; shown before loading.
struct MemoryEstimate {
  uint64_t in_file = 0;  // weights used in place: pages of the mapped file
  uint64_t decoded = 0;  // weights copied at load: converted, quantised or reordered ones
  uint64_t weights = 0;  // in_file + decoded
  uint64_t kv = 0, workspace = 0;
  uint64_t total() const { return weights + kv + workspace; }
};
// passes: of Recipe; every pass of a layer keeps its own keys, values and state.
MemoryEstimate estimate_memory(std::string_view backend, const ModelPlan& plan, const Checkpoint& checkpoint, int context,
                               std::span<const uint8_t> passes = {});
// Bytes of keys, values and state of a sequence of `context` tokens.
uint64_t kv_bytes(const ModelPlan& plan, int context, std::span<const uint8_t> passes);

// "12.00 GB (weights 10.00 GB, of which 1.00 GB decoded, keys and values ...)".
std::string memory_text(const MemoryEstimate& need);
// Memory that a process may still take: MemAvailable, or what the control group leaves if that is less.
uint64_t available_memory();
// Refuses what needs more than `available` bytes, with the sum term by term. what: the model, for the message.
Result<void> check_fits(const MemoryEstimate& need, uint64_t available, const std::string& what);

// The first kind of the plan that the cpu backend lacks, in words; empty: it runs the plan.
std::string missing_on_cpu(const ModelPlan& plan);

// name: "auto" (cpu where it has all kinds, else reference with a note), "cpu", "reference".
// "cuda" is a module: kDevice where it, a driver or a device is missing. Weights stay where WeightStore maps them where the backend can.
Result<std::unique_ptr<Backend>> make_backend(std::string_view name, const Checkpoint& checkpoint,
                                              std::shared_ptr<const WeightStore> weights,
                                              const BackendOptions& options, Task* task = nullptr);

// Implemented by each backend's folder.
Result<std::unique_ptr<Backend>> make_cpu_backend(const ModelPlan& plan, std::shared_ptr<const WeightStore> weights,
                                                  const BackendOptions& options, Task* task);
// Loads libswitchyard_reference.so (SWITCHYARD_REFERENCE_LIB, else beside the program or in its lib folder).
Result<std::unique_ptr<Backend>> make_reference_backend(const ModelPlan& plan, std::shared_ptr<const WeightStore> weights,
                                                        const BackendOptions& options, Task* task);

}  // namespace switchyard

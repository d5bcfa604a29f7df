// The launches of one step through the layers: one token as a captured graph of matrix times vector, a piece of a
// prompt as tiles. Where the host takes part in a sublayer (host_walk.h), the step is cut there: what lies between is a
// graph of its own. It owns the buffers in between. Engine thread.
#pragma once

#include <map>
#include <span>

#include "engine/backend/cuda/cache.h"
#include "engine/backend/cuda/model.h"
#include "engine/backend/cuda/ring.h"

namespace switchyard::cuda {

// A sublayer on a step's way through the layers.
struct Visit {
  int sublayer = 0;
  int pass = 0;       // of its layer
  size_t keys = 0;    // of attention: where the pass keeps its keys in a block
  int window = 0;     // of attention: how many tokens back the routers behind it ask for shares; 0: none asks
  bool host = false;  // the host takes part
  bool operator==(const Visit&) const = default;
};

// What makes one graph differ from another.
struct StepShape {
  int tokens = 1;
  int slots = 0;            // room of a decision, the most of any row
  int width = 0;            // experts and null experts, the most of any row
  bool logits = true;       // of the last token
  bool all_logits = false;  // of all; not of one token
  bool picks = false;       // chooses the next token on the device
  bool embeds = true;       // false: hidden() holds what the first sublayer reads
  Ring ring;
  std::vector<Visit> way;  // empty: every sublayer once, without the host
  bool operator==(const StepShape& other) const {
    return tokens == other.tokens && slots == other.slots && width == other.width && logits == other.logits &&
           all_logits == other.all_logits && picks == other.picks && embeds == other.embeds &&
           ring.records == other.ring.records && way == other.way;
  }
  int window() const {  // the most that any attention is asked for
    int most = 0;
    for (const Visit& visit : way) most = visit.window > most ? visit.window : most;
    return most;
  }
};

// Runs the sublayers of a step in which the host takes part.
class HostSide {
 public:
  virtual ~HostSide() = default;
  virtual Result<void> run(const StepShape& shape, const Visit& visit) = 0;
};

class Executor {
 public:
  // positions: tokens that a cache may hold at most, for the rope's tables.
  static Result<std::unique_ptr<Executor>> make(const ModelOnDevice& model, Stream& stream, int positions);

  // Recipe tables of the rows, in device memory: kept current by the backend.
  GateTable* tables() const { return tables_.as<GateTable>(); }

  // Buffers for such a step, hidden() among them; step() does it too.
  Result<void> prepare(const StepShape& shape) { return size_buffers(shape); }
  // Launches a step for the tokens that follow those of the cache, whose blocks are there; first_record: their number
  // in the ring. Asynchronous, but where the host takes part. done: see launch_tell_host(), null: nobody asks. host: of
  // a way with such visits.
  Result<void> step(const StepShape& shape, std::span<const TokenId> tokens, const DeviceCache& cache,
                    uint32_t sequence, uint64_t first_record, uint64_t* done, HostSide* host = nullptr);
  // Launches `count` further steps of one token, each with the id that the one before chose; the first follows a step
  // with shape.picks. chosen(): ids by position.
  Result<void> run_on(const StepShape& shape, int count, uint64_t* done);
  void set_sampler(const Sampler& sampler);
  const int32_t* chosen() const { return chosen_.as<int32_t>(); }

  // Of the last step: [1 or tokens, vocab], on the device.
  const float* logits() const { return logits_.as<float>(); }

  // ---- the parts of a feed-forward sublayer, in order, for HostSide ----
  // Norm (unless normed() holds the input already), the router's logits without its bias, the shared block's gate.
  void make_logits(const StepShape& shape, const SublayerOnDevice& sublayer, bool norms);
  // out [tokens, rows of the matrix] = normed() times a further matrix.
  void make_more(const StepShape& shape, const Matrix& matrix, float* out);
  // By the recipe's tables; with its records.
  void decide(const StepShape& shape, const FeedForwardOnDevice& op);
  void make_units(const StepShape& shape, const FeedForwardOnDevice& op);
  // out += factor * what the chosen experts and the shared block give.
  void add_outputs(const StepShape& shape, const FeedForwardOnDevice& op, float* out, float factor);
  // outputs() = what each expert gives, not weighed, by the order of units().
  void make_outputs(const StepShape& shape, const FeedForwardOnDevice& op);

  Chosen chosen(const StepShape& shape) const {
    return {count_.as<int32_t>(), experts_.as<ExpertId>(), weights_.as<float>(), inputs_.as<float>(), shape.slots};
  }
  float* hidden() const { return hidden_.as<float>(); }         // [tokens, hidden]: the residual stream
  float* normed() const { return normed_.as<float>(); }         // [tokens, hidden]
  float* router_logits() const { return router_.as<float>(); }  // [tokens, E]
  // Of one token [slots][FeedForwardOnDevice::width()] by rising expert; of many [slots][form.width] by expert, then
  // token.
  float* units() const { return units_.as<float>(); }
  float* outputs() const { return routed_.as<float>(); }  // [slots, hidden]
  float* shares() const { return shares_.as<float>(); }   // [tokens, window] of the last attention that was asked
  // Of attention sublayers: bytes of a block that their keys and values take.
  static size_t key_bytes(const SublayerOnDevice& sublayer);

 private:
  Executor(const ModelOnDevice& model, Stream& stream, int positions)
      : model_(model), stream_(stream), positions_(positions) {}
  Result<void> make_ropes();
  Result<void> size_buffers(const StepShape& shape);
  void launch_all(Stream& stream, const StepShape& shape, uint64_t* done);
  Result<void> walk(const StepShape& shape, HostSide* host, uint64_t* done);
  // Visits [first, end) of the way, without the host.
  Result<void> run_stretch(const StepShape& shape, size_t first, size_t end);
  void launch_visit(Stream& stream, const StepShape& shape, const Visit& visit);
  void run(Stream& stream, const StepShape& shape, const Visit& visit, const AttentionOnDevice& op);
  void run(Stream& stream, const StepShape& shape, const Visit& visit, const LatentOnDevice& op);
  void run(Stream& stream, const StepShape& shape, const Visit& visit, const FeedForwardOnDevice& op);
  RouteJob route_job(const StepShape& shape, const FeedForwardOnDevice& op) const;
  Projection router_job(const SublayerOnDevice& sublayer, const FeedForwardOnDevice& op) const;
  ExpertJob expert_job(const StepShape& shape, const FeedForwardOnDevice& op, float* out, float factor) const;
  Sorted sorted() const;
  void make_logits(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer,
                   const FeedForwardOnDevice& op, bool norms);
  void make_units(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op);
  void add_outputs(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op, float* out, float factor);
  void make_outputs(Stream& stream, const StepShape& shape, const FeedForwardOnDevice& op);  // slots sorted before
  void begin_step(Stream& stream, const StepShape& shape);
  void end_step(Stream& stream, const StepShape& shape, uint64_t* done);
  void head(Stream& stream, const StepShape& shape);
  // out = norm(in) W^T, or onto the residual stream.
  void multiply(Stream& stream, int tokens, const float* in, const Matrix& matrix, const float* bias, float* out,
                int step, int at, bool adds = false, float factor = 1) const;
  // What a mixer made, through its output matrix, onto the residual stream.
  void add_output(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const float* in,
                  const Matrix& matrix, const float* bias);
  void attend(Stream& stream, const StepShape& shape, const Visit& visit, const KeyPlace& place, int heads, float scale,
              int window, int chunk, const float* sinks, const float* queries);
  Rope rope(int index) const;

  const ModelOnDevice& model_;
  Stream& stream_;
  int positions_;
  struct RopeTables {
    Buffer cosines, sines;
  };
  std::vector<RopeTables> ropes_;

  Buffer state_, tokens_, tables_, sampler_, chosen_, counters_;
  Buffer host_state_, host_tokens_, host_sampler_;  // pinned
  int token_room_ = 0, slot_room_ = 0, width_room_ = 0, logit_rows_ = 0, share_room_ = 0;
  Buffer hidden_, normed_, projected_, queries_, absorbed_, mixed_, values_, partial_, low_;
  Buffer router_, biased_, shared_gates_, count_, experts_, weights_, inputs_, units_, routed_, shared_units_, shared_,
      logits_, shares_;
  Buffer slot_counts_, slot_starts_, slot_tokens_, slot_inputs_, slot_places_;
  int splits_ = 1;

  StepShape captured_;
  uint64_t* captured_done_ = nullptr;
  std::unique_ptr<Graph> graph_;
  StepShape walked_;
  std::map<size_t, std::unique_ptr<Graph>> stretches_;  // of that way, by the first visit
};

}  // namespace switchyard::cuda

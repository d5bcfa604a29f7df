// The launches of one step through the layers: one token as a captured graph of matrix times vector, a piece of a
// prompt as tiles. It owns the buffers in between. Engine thread.
#pragma once

#include <span>

#include "engine/backend/cuda/cache.h"
#include "engine/backend/cuda/model.h"
#include "engine/backend/cuda/ring.h"

namespace switchyard::cuda {

// What makes one graph differ from another.
struct StepShape {
  int tokens = 1;
  int slots = 0;            // room of a decision, the most of any row
  int width = 0;            // experts and null experts, the most of any row
  bool logits = true;       // of the last token
  bool all_logits = false;  // of all; not of one token
  bool picks = false;       // chooses the next token on the device
  Ring ring;
  bool operator==(const StepShape& other) const {
    return tokens == other.tokens && slots == other.slots && width == other.width && logits == other.logits &&
           all_logits == other.all_logits && picks == other.picks && ring.records == other.ring.records;
  }
};

class Executor {
 public:
  // positions: tokens that a cache may hold at most, for the rope's tables.
  static Result<std::unique_ptr<Executor>> make(const ModelOnDevice& model, Stream& stream, int positions);

  // Recipe tables of the rows, in device memory: kept current by the backend.
  GateTable* tables() const { return tables_.as<GateTable>(); }

  // Launches a step for the tokens that follow those of the cache, whose blocks are there; first_record: their number
  // in the ring. Asynchronous. done: see launch_tell_host(), null: nobody asks.
  Result<void> step(const StepShape& shape, std::span<const TokenId> tokens, const DeviceCache& cache,
                    uint32_t sequence, uint64_t first_record, uint64_t* done);
  // Launches `count` further steps of one token, each with the id that the one before chose; the first follows a step
  // with shape.picks. chosen(): ids by position.
  Result<void> run_on(const StepShape& shape, int count, uint64_t* done);
  void set_sampler(const Sampler& sampler);
  const int32_t* chosen() const { return chosen_.as<int32_t>(); }

  // Of the last step: [1 or tokens, vocab], on the device.
  const float* logits() const { return logits_.as<float>(); }

 private:
  Executor(const ModelOnDevice& model, Stream& stream, int positions)
      : model_(model), stream_(stream), positions_(positions) {}
  Result<void> make_ropes();
  Result<void> size_buffers(const StepShape& shape);
  void launch_all(Stream& stream, const StepShape& shape, uint64_t* done);
  void run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const AttentionOnDevice& op);
  void run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const LatentOnDevice& op);
  void run(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const FeedForwardOnDevice& op);
  void run_one(Stream& stream, const RouteJob& job, const SublayerOnDevice& sublayer, const FeedForwardOnDevice& op);
  void run_many(Stream& stream, const StepShape& shape, const RouteJob& job, const SublayerOnDevice& sublayer,
                const FeedForwardOnDevice& op);
  void head(Stream& stream, const StepShape& shape);
  // out = norm(in) W^T, or onto the residual stream.
  void multiply(Stream& stream, int tokens, const float* in, const Matrix& matrix, const float* bias, float* out,
                int step, int at, bool adds = false, float factor = 1) const;
  // What a mixer made, through its output matrix, onto the residual stream.
  void add_output(Stream& stream, const StepShape& shape, const SublayerOnDevice& sublayer, const float* in,
                  const Matrix& matrix, const float* bias);
  void attend(Stream& stream, const StepShape& shape, const KeyPlace& place, int heads, float scale, int window,
              int chunk, const float* sinks, const float* queries);
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
  int token_room_ = 0, slot_room_ = 0, width_room_ = 0, logit_rows_ = 0;
  Buffer hidden_, normed_, projected_, queries_, absorbed_, mixed_, values_, partial_, low_;
  Buffer router_, biased_, shared_gates_, count_, experts_, weights_, inputs_, units_, routed_, shared_units_, shared_,
      logits_;
  Buffer slot_counts_, slot_starts_, slot_tokens_, slot_inputs_, slot_places_;
  int splits_ = 1;

  StepShape captured_;
  uint64_t* captured_done_ = nullptr;
  std::unique_ptr<Graph> graph_;
};

}  // namespace switchyard::cuda

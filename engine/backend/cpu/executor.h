// One chunk of tokens through the sublayers of a model; the same code for one token and for many. It owns the
// residual stream; what a kind of sublayer computes is in its own file.
// Called by CpuBackend::forward() on the engine thread.
#pragma once

#include <vector>

#include "engine/backend/cpu/adapters.h"
#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/attention.h"
#include "engine/backend/cpu/feed_forward.h"
#include "engine/backend/cpu/model.h"
#include "engine/backend/cpu/step.h"

namespace switchyard::cpu {

inline constexpr int kChunkTokens = 512;  // of a prompt; bounds the workspace

class Executor {
 public:
  Executor(const Model& model, const Kernels& kernels, ThreadPool& pool)
      : model_(model), step_(kernels, pool, model.ropes) {
    step_.adapters = &adapters_;
  }
  Executor(const Executor&) = delete;  // the step points into it

  // kCancelled between layers when the task asks for it; the cache is the caller's to restore.
  Result<void> run(const Chunk& chunk);

 private:
  void embed();
  void run_layer(const Layer& layer, bool experts_off);
  int attention_window(const Layer& layer, size_t mixer) const;
  void run_sublayer(const Sublayer& sublayer);
  void run_passes(const Sublayer& sublayer, const FeedForward& block, const Stages& scheme);
  void leave_out(const Sublayer& sublayer);
  void run_op(const Sublayer& sublayer, const Sum& sum);
  void combine(const Sublayer& sublayer, int token, bool onto_base = true);
  void write_logits();
  void normalise(const Norm& norm, Rows& from, Rows& to, int first = 0);

  const Model& model_;
  Step step_;
  AttentionRows attention_;
  AdapterRun adapters_;
  GroupedAttention grouped_;
  LatentAttentionRun latent_;
  FeedForwardRun feed_forward_;

  Rows hidden_, normed_, made_, deferred_;  // residual; op's input; op's output; outputs kept for the layer's end
  Rows state_, pass_;                       // of a layer that runs in passes: x_t, y_t
  std::vector<float*> hidden_rows_, made_rows_, deferred_rows_, logit_rows_, pass_rows_;
  std::vector<const float*> normed_rows_, state_rows_;
  std::vector<float> factors_;
};

}  // namespace switchyard::cpu

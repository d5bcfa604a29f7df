// One chunk of tokens through the layers of a model, phase by phase; the same code for one token and
// for many. Between phases lies one barrier of the pool; small phases run on the engine thread alone.
// Called by CpuBackend::forward() on the engine thread.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_cache.h"
#include "engine/backend/cpu/model.h"
#include "engine/base/thread_pool.h"

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
};

inline constexpr int kChunkTokens = 512;  // of a prompt; bounds the workspace

class Executor {
 public:
  Executor(const Model& model, const Kernels& kernels, ThreadPool& pool)
      : model_(model), kernels_(kernels), pool_(pool) {}

  // kCancelled between layers when the task asks for it; the cache is the caller's to restore.
  Result<void> run(const Chunk& chunk);

 private:
  // A matrix times the tokens, one of several that share a phase.
  struct Product {
    const Matrix* matrix;
    TokenRows tokens;
  };
  // Slots [first, first + count) of the sorted slots go to one expert.
  struct Group {
    int expert, first, count;
  };
  // Query heads of one kv head, at most kMaxQueries of them.
  struct HeadGroup {
    int kv_head, first_head, heads;
  };
  struct StateSpace {
    AlignedFloats largest, sum, values;
    AttentionState shape(int queries, int value_dim);
  };
  // What a worker needs for itself.
  struct WorkerSpace {
    AlignedFloats scores, routing;
    StateSpace total, span;  // attention over all keys, over one span of them
  };

  // executor.cpp
  void shape_workspace();
  void embed();
  void prepare_ropes();
  void apply_norm(const Norm& norm, const float* x, float* out, int64_t n) const;
  void normalise(const Norm& norm, const Rows& in, Rows& out, int first = 0);
  void multiply(std::span<const Product> products);
  void write_logits();
  TokenRows rows_of(const std::vector<const float*>& in, const std::vector<float*>& out, bool accumulate) const;
  // Parts worth making of a phase that reads `bytes`; 1: not worth a barrier.
  int parts_for(int64_t bytes) const;
  template <class Body>
  void for_tokens(int64_t bytes_per_token, Body&& body);

  // attention.cpp
  void attention(int layer);
  void finish_qkv(int layer, int token);
  void rotate(int rope, int token, float* heads, int count, int head_dim) const;
  void attend(int layer);
  void attend_one_token(int layer);
  void attend_tokens(int layer, const HeadGroup& group, int first, int count, WorkerSpace& space);
  void attend_span(int layer, const HeadGroup& group, int first, int count, int span, float* scores,
                   const AttentionState& state);
  void finish_attention(int layer, const HeadGroup& group, int first, int count, const AttentionState& state);

  // experts.cpp
  void feed_forward(int layer);
  void route_tokens(const FeedForward& ffn);
  void route_token(const FeedForward& ffn, const LayerRecipe* recipe, int token, WorkerSpace& space);
  void sort_slots(const FeedForward& ffn);
  void take_all_tokens();
  void size_slots(int slots);
  int64_t expert_bytes(const FeedForward& ffn) const;
  void gate_up(const FeedForward& ffn);
  void down(const FeedForward& ffn);

  const Model& model_;
  const Kernels& kernels_;
  ThreadPool& pool_;

  // State of the chunk in hand.
  const Chunk* chunk_ = nullptr;
  int count_ = 0;     // tokens
  int position_ = 0;  // of the first

  Rows hidden_, normed_, qkv_, mixed_, router_logits_;
  std::vector<const float*> normed_in_, mixed_in_;
  std::vector<float*> hidden_out_, q_out_, k_out_, v_out_, router_out_;
  std::vector<float> ones_;
  std::vector<std::vector<float>> cosines_, sines_;  // per rope [tokens, dims / 2]
  std::vector<WorkerSpace> workers_;
  std::vector<HeadGroup> head_groups_;
  std::vector<StateSpace> spans_;  // of one token: [head group, span]

  // Routing of the chunk: [tokens, slots_], then the same sorted by expert.
  int slots_ = 0;
  std::vector<Decision> decisions_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_;
  std::vector<SlotKind> kinds_;
  std::vector<Group> groups_;
  std::vector<int> next_;                        // per expert, for the counting sort
  std::vector<float> slot_weight_, slot_input_;  // multiplies the output; the input
  std::vector<const float*> slot_in_, slot_act_;
  std::vector<float*> slot_gate_, slot_up_, slot_hidden_;
  Rows gate_, up_;
};

template <class Body>
void Executor::for_tokens(int64_t bytes_per_token, Body&& body) {
  const int parts = std::min(count_, parts_for(bytes_per_token * count_));
  pool_.run(parts, [&](int part, int worker) {
    const RowRange tokens = split_rows(count_, parts, part);
    for (int token = int(tokens.begin); token < int(tokens.end); ++token) body(token, worker);
  });
}

}  // namespace switchyard::cpu

// Queries of a chunk against the keys and values in the cache: masks, online softmax, sinks.
// Keys are taken in spans of blocks that begin at fixed positions. A span's state starts empty and spans are
// merged in order, whoever computed them: so one token may be shared out over its spans and a prompt over its
// tokens, with equal results bit for bit.
// Used by the attention sublayers on the engine thread.
#pragma once

#include <vector>

#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/step.h"

namespace switchyard::cpu {

class Attend {
 public:
  // queries, out: [count] rows of [heads * head_dim], [heads * value_dim]; the chunk's keys are in the cache.
  void run(const Step& step, const KeyShape& shape, float* const* queries, float* const* out);

 private:
  // Query heads of one kv head, at most kMaxQueries of them.
  struct HeadGroup {
    int kv_head, first_head, heads;
  };
  // Tokens [first, first + count) of the chunk.
  struct Tokens {
    int first, count;
  };
  struct StateSpace {
    AlignedFloats largest, sum, values;
    AttentionState shape(int queries, int value_dim);
  };
  // What a worker needs for itself.
  struct WorkerSpace {
    AlignedFloats scores;
    StateSpace total, span;  // over all keys, over one span of them
  };

  void attend(const Step& step, const KeyShape& shape, float* const* queries, float* const* out);
  void one_token();
  void some_tokens(const HeadGroup& group, Tokens tokens, WorkerSpace& space);
  void one_span(const HeadGroup& group, Tokens tokens, int span, float* scores, const AttentionState& state);
  void finish(const HeadGroup& group, Tokens tokens, const AttentionState& state);
  // The shares that routers ask for, once the states are whole.
  void share_out(int token) const;
  void add_shares(int token, int head, float* out) const;

  const Step* step_ = nullptr;  // of the run in hand, as are the next three
  const KeyShape* shape_ = nullptr;
  float* const* queries_ = nullptr;
  float* const* out_ = nullptr;
  int state_dim_ = 0;  // of a query's values in a state
  std::vector<WorkerSpace> workers_;
  std::vector<HeadGroup> groups_;
  std::vector<StateSpace> spans_;  // of one token: [head group, span]
  std::vector<float> largest_, sum_;  // [tokens, heads] of the softmax; where routers ask
};

}  // namespace switchyard::cpu

// The end of a token: the next id from the logits, on the device, as engine/runtime/sampler.h says, and the word that
// tells the host that the records are whole. One block.
#pragma once

#include "engine/backend/cuda/dot.cuh"
#include "engine/base/philox.h"

namespace switchyard::cuda {

inline constexpr int kPickThreads = 1024;

struct Candidate {
  float logit = INFINITY;
  int id = -1;
};

// The largest logit behind `last` (falling; equal logits: lower id first), id = vocab: there is none. In all threads.
__device__ inline Candidate next_candidate(const float* logits, int vocab, Candidate last) {
  STATIC_SHARED(float, best_logit, kWarp);
  STATIC_SHARED(int, best_id, kWarp);
  Candidate best{-INFINITY, vocab};
  for (int i = int(threadIdx.x); i < vocab; i += int(blockDim.x)) {
    const float logit = logits[i];
    const bool left = logit < last.logit || (logit == last.logit && i > last.id);  // false for NaN
    if (left && (logit > best.logit || (logit == best.logit && i < best.id))) best = {logit, i};
  }
  const auto take = [&](float logit, int id) {
    if (logit > best.logit || (logit == best.logit && id < best.id)) best = {logit, id};
  };
  for (int with = kWarp / 2; with > 0; with /= 2) {
    const float logit = __shfl_xor_sync(kAllLanes, best.logit, with);
    const int id = __shfl_xor_sync(kAllLanes, best.id, with);
    take(logit, id);
  }
  __syncthreads();
  if (lane() == 0) best_logit[warp()] = best.logit, best_id[warp()] = best.id;
  __syncthreads();
  for (int w = 0; w < warps(); ++w) take(best_logit[w], best_id[w]);
  return best;
}

// exp((logit - top) / temperature), 0 for NaN.
__device__ __forceinline__ double weight_of(float logit, float top, float temperature) {
  return logit == logit ? exp((double(logit) - double(top)) / double(temperature)) : 0.0;
}

// Sum of the weights of logits >= least, in one order: by thread, then by thread number. In all threads.
__device__ inline double sum_weights(const PickJob& job, float top, float temperature, float least) {
  STATIC_SHARED(double, partial, kPickThreads);
  double sum = 0;
  for (int i = int(threadIdx.x); i < job.vocab; i += int(blockDim.x))
    if (job.logits[i] >= least) sum += weight_of(job.logits[i], top, temperature);
  __syncthreads();
  partial[threadIdx.x] = sum;
  for (int half = int(blockDim.x) / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + unsigned(half)];
  }
  __syncthreads();
  return partial[0];
}

__device__ inline int sample_id(const PickJob& job, const Sampler& sampler, Candidate top, uint32_t sequence,
                                uint64_t index) {
  float least = -INFINITY;  // of top-k; ties with the k-th stay
  if (sampler.top_k > 0) {
    Candidate kth = top;
    for (int k = 1; k < sampler.top_k && kth.id < job.vocab; ++k) kth = next_candidate(job.logits, job.vocab, kth);
    if (kth.id < job.vocab) least = kth.logit;
  }
  const double total = sum_weights(job, top.logit, sampler.temperature, least);
  // From the top: the kept mass first, then the id in which the random number falls.
  const auto left = [&](const Candidate& c) {
    return c.id < job.vocab && c.logit >= least && weight_of(c.logit, top.logit, sampler.temperature) > 0;
  };
  double kept = total;
  if (sampler.top_p < 1.0f) {
    kept = 0;
    for (Candidate next = top; left(next) && kept < double(sampler.top_p) * total;
         next = next_candidate(job.logits, job.vocab, next))
      kept += weight_of(next.logit, top.logit, sampler.temperature);
  }
  const auto words = philox4x32({uint32_t(index), uint32_t(index >> 32), sequence, 0},
                                {uint32_t(sampler.seed), uint32_t(sampler.seed >> 32)});
  const double target = unit_interval(words[0]) * kept;
  double reached = 0;
  Candidate next = top;
  for (;;) {
    reached += weight_of(next.logit, top.logit, sampler.temperature);
    if (reached > target) return next.id;
    const Candidate after = next_candidate(job.logits, job.vocab, next);
    if (!left(after)) return next.id;
    next = after;
  }
}

__global__ void __launch_bounds__(kPickThreads) pick(PickJob job) {
  let_next_start();
  wait_for_previous();
  const Candidate top = next_candidate(job.logits, job.vocab, Candidate{});
  const Sampler sampler = *job.sampler;
  const StepState state = *job.state;
  const uint64_t index = uint64_t(state.position) + uint64_t(state.count);
  int id = top.id < job.vocab ? top.id : 0;
  if (!sampler.greedy && top.logit > -INFINITY && top.logit < INFINITY)
    id = sample_id(job, sampler, top, state.sequence, index);
  __syncthreads();
  if (threadIdx.x != 0) return;
  job.chosen[index] = id;
  job.state->tokens[0] = id;
  job.state->position = int32_t(index), job.state->count = 1;
  job.state->record = state.record + uint64_t(state.count);
}

// Tells the host, which polls `done`, how many records are whole.
__global__ void __launch_bounds__(kWarp) tell_host(const StepState* state, uint64_t* done) {
  let_next_start();
  wait_for_previous();
  if (threadIdx.x == 0) publish(done, state->record + uint64_t(state->count));
}

}  // namespace switchyard::cuda

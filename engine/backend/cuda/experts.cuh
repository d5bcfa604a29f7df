// Kernels 5 to 7 of engine.md section 5: router and decision, then the chosen experts where they lie. No token is
// moved: blocks go to the experts. A warp owns a row of the output and adds the slots in their order, so there are no
// atomics and a run repeats bit for bit.
#pragma once

#include "engine/backend/cuda/gate.cuh"
#include "engine/backend/cuda/project.cuh"

namespace switchyard::cuda {

// The router of one token: norm, logits, and in the last block to be done the decision. x takes the normed input,
// behind it lies the room of the decision.
__global__ void __launch_bounds__(kProjectThreads)
    route(const StepState* state, Projection router, RouteJob job, unsigned* arrived) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  load_normed(router.in, router.norm, router.cols, x);
  if (blockIdx.x == 0)
    for (int i = int(threadIdx.x); i < router.cols; i += int(blockDim.x)) router.normed[i] = x[i];
  project_rows(router, x);
  if (!last_to_arrive(arrived, gridDim.x) || warp() != 0) return;
  route_token(*state, job, 0, x);
}

// Of the tokens of a prompt: a warp a token. Grid: tokens.
__global__ void __launch_bounds__(kWarp) route_rows(const StepState* state, RouteJob job) {
  DYNAMIC_SHARED(float, memory);
  let_next_start();
  wait_for_previous();
  route_token(*state, job, int(blockIdx.x), memory);
}

__device__ __forceinline__ float activate(Unit unit, float x) {
  switch (unit) {
    case Unit::kSilu:
      return x / (1.0f + expf(-x));
    case Unit::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Unit::kGeluTanh:
      return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    case Unit::kRelu:
      return x < 0 ? 0.0f : x;  // NaN stays NaN
  }
  return x;
}

// What unit f of a block is, from the products of its gate and up rows with the input.
__device__ __forceinline__ float hidden_unit(const FfnForm& form, const Expert& expert, int f, float gate, float up,
                                             float input) {
  gate = gate * input + (expert.gate_bias ? expert.gate_bias[f] : 0.0f);
  up = up * input + (expert.up_bias ? expert.up_bias[f] : 0.0f);
  if (expert.units_off && expert.units_off[f]) return 0;
  if (form.form == Form::kMlp) return activate(form.unit, up);
  if (form.form == Form::kGlu) return activate(form.unit, gate) * up;
  gate = gate > form.limit ? form.limit : gate;
  up = up > form.limit ? form.limit : up < -form.limit ? -form.limit : up;
  return (up + 1.0f) * (gate / (1.0f + expf(-form.alpha * gate)));
}

// Kernel 6. Grid: (row tiles, slots + shared); blocks of slots that nobody fills end at once.
__global__ void __launch_bounds__(kProjectThreads) expert_units(ExpertJob job) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int slot = int(blockIdx.y);
  const bool shared = slot == job.chosen.slots;
  if (!shared && slot >= job.chosen.count[0]) return;
  const Expert expert = shared ? *job.shared : job.experts[job.chosen.experts[slot]];
  const FfnForm& form = shared ? job.shared_form : job.form;
  const float input = shared ? 1.0f : job.chosen.inputs[slot];
  load_normed(job.in, Norm{}, job.hidden, x);
  const int64_t row_bytes = int64_t(job.hidden) * stored_bytes(expert.type);
  for (int f = int(blockIdx.x) * warps() + warp(); f < form.width; f += int(gridDim.x) * warps()) {
    float sums[2] = {};
    if (form.form == Form::kMlp) {
      const unsigned char* const rows[1] = {expert.up + f * row_bytes};
      float up[1];
      dot_rows<1>(expert.type, rows, x, job.hidden, up);
      sums[1] = up[0];
    } else {
      const unsigned char* const rows[2] = {expert.gate + f * row_bytes, expert.up + f * row_bytes};
      dot_rows<2>(expert.type, rows, x, job.hidden, sums);
    }
    if (lane() == 0) job.units[int64_t(slot) * job.width + f] = hidden_unit(form, expert, f, sums[0], sums[1], input);
  }
}

inline constexpr int kDownThreads = 512;

__device__ __forceinline__ float gate_of_shared(const float* logit, int token) {
  return logit ? 1.0f / (1.0f + expf(-logit[token])) : 1.0f;
}

// Kernel 7: the slots' units times the down matrices, weighed and added to the residual stream. room: numbers of shared
// memory, at least one block's units; as many slots as fit are read at a time.
__global__ void __launch_bounds__(kDownThreads) expert_down(ExpertJob job, int room) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int routed = job.experts ? job.chosen.count[0] : 0, all = routed + (job.shared ? 1 : 0);
  const int at_once = room / job.width;
  for (int base = int(blockIdx.x) * warps(); base < job.hidden; base += int(gridDim.x) * warps()) {
    const int row = base + warp();
    float sum = row < job.hidden && job.output_bias ? job.output_bias[row] : 0.0f;
    for (int first = 0; first < all; first += at_once) {
      const int count = all - first < at_once ? all - first : at_once;
      __syncthreads();
      for (int i = int(threadIdx.x); i < count * job.width; i += int(blockDim.x)) {
        const int slot = first + i / job.width;
        const int width = slot < routed ? job.form.width : job.shared_form.width;
        if (i % job.width < width)
          x[i] = job.units[int64_t(slot < routed ? slot : job.chosen.slots) * job.width + i % job.width];
      }
      __syncthreads();
      if (row >= job.hidden) continue;
      for (int slot = first; slot < first + count; ++slot) {
        const bool shared = slot >= routed;
        const Expert& expert = shared ? *job.shared : job.experts[job.chosen.experts[slot]];
        const int width = shared ? job.shared_form.width : job.form.width;
        const unsigned char* const rows[1] = {expert.down + int64_t(row) * width * stored_bytes(expert.down_type)};
        float y[1];
        dot_rows<1>(expert.down_type, rows, x + (slot - first) * job.width, width, y);
        sum += (shared ? gate_of_shared(job.shared_gate, 0) : job.chosen.weights[slot]) *
               (y[0] + (expert.down_bias ? expert.down_bias[row] : 0.0f));
      }
    }
    if (lane() == 0 && row < job.hidden) job.out[row] += job.factor * sum;
  }
}

}  // namespace switchyard::cuda

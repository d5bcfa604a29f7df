// The kernel around a plugin's sy_device_route(). Compiled while the program runs: its text lies behind
// switchyard/device.h and the plugin's source, and it includes nothing. SchemeJob is the host's too
// (device_scheme.cpp); the tests compile all three by g++ for the emulator.
#ifndef SWITCHYARD_SCHEME_KERNEL
#define SWITCHYARD_SCHEME_KERNEL

// What the kernel is told. Pointers are the device's.
struct SchemeJob {
  const float* logits;       // [tokens, experts] without the router's bias
  const float* bias;         // [experts] or null
  float* clean;              // [tokens, experts]: gets the logits as the plugin sees them
  float* work;               // [tokens, experts]
  const double* parameters;  // [parameter_count]
  const int* token_ids;      // [tokens]
  unsigned tokens, experts, k, slots, parameter_count, layer, row, sequence;
  unsigned together;            // tokens that run in one pass, in blocks of so many
  unsigned long long position;  // of the first token
  // What the plugin wrote: [tokens, slots], count [tokens]; 0: refused, the model's own router decides.
  int* id;
  float* weight;
  unsigned char* flags;
  unsigned* count;
  unsigned* refused;  // becomes 1 where a token was; of the host
  // What runs: Chosen of [tokens, room] by rising expert; a refused token's stays as it is. Null: nothing is to run.
  int* chosen_count;
  unsigned short* chosen_expert;
  float *chosen_weight, *chosen_input;
  unsigned room;
  float scale;    // routed scale
  bool of_input;  // the weight multiplies the expert's input
};

#endif

#if defined(__CUDACC__) || defined(CUDA_ON_CPU)
// As PluginGate looks at what a host function wrote.
SY_DEVICE bool sy_slots_are_right(const SchemeJob& job, const float* logits, const int* id, const float* weight,
                                  const unsigned char* flags, unsigned used) {
  if (used < 1 || used > job.slots) return false;
  for (unsigned slot = 0; slot < used; ++slot) {
    if (id[slot] < 0 || unsigned(id[slot]) >= job.experts || logits[id[slot]] == -INFINITY) return false;
    for (unsigned before = 0; before < slot; ++before)
      if (id[before] == id[slot]) return false;
    if (!(fabsf(weight[slot]) <= 3.402823466e38f) || flags[slot] > 1) return false;
  }
  return true;
}

extern "C" __global__ void sy_decide(const SchemeJob job) {
  const unsigned token = blockIdx.x * blockDim.x + threadIdx.x;
  if (token >= job.tokens) return;
  const unsigned long long first = (unsigned long long)token * job.experts, own = (unsigned long long)token * job.slots;
  float* const logits = job.clean + first;
  float smallest = INFINITY;
  for (unsigned e = 0; e < job.experts; ++e) {
    const float z = logits[e] = job.logits[first + e] + (job.bias ? job.bias[e] : 0.0f);
    if (fabsf(z) <= 3.402823466e38f && z < smallest) smallest = z;
  }
  if (smallest == INFINITY) smallest = 0;
  for (unsigned e = 0; e < job.experts; ++e) {  // stages::copy_clean()
    if (logits[e] != logits[e]) logits[e] = smallest;
    if (logits[e] > 3.402823466e38f) logits[e] = 3.402823466e38f;
  }

  int* const id = job.id + own;
  float* const weight = job.weight + own;
  unsigned char* const flags = job.flags + own;
  for (unsigned slot = 0; slot < job.slots; ++slot) id[slot] = 0, weight[slot] = 0, flags[slot] = 0;
  const unsigned block = token / job.together * job.together;
  const sy_device_in in = {logits,
                           job.work + first,
                           job.parameters,
                           job.experts,
                           job.k,
                           job.slots,
                           job.parameter_count,
                           job.layer,
                           job.row,
                           job.together > 1 && job.tokens - block > 1 ? 0u : 1u,
                           job.sequence,
                           job.token_ids[token],
                           job.position + token};
  const unsigned used = sy_device_route(&in, id, weight, flags);
  const bool right = sy_slots_are_right(job, logits, id, weight, flags, used);
  job.count[token] = right ? used : 0;
  if (!right) {
    *job.refused = 1;
    return;
  }
  if (!job.chosen_count) return;
  job.chosen_count[token] = int(used);
  for (unsigned slot = 0; slot < used; ++slot) {
    unsigned place = token * job.room;
    for (unsigned other = 0; other < used; ++other) place += id[other] < id[slot];
    const float scaled = weight[slot] * job.scale;
    job.chosen_expert[place] = (unsigned short)id[slot];
    job.chosen_weight[place] = job.of_input ? 1.0f : scaled;
    job.chosen_input[place] = job.of_input ? scaled : 1.0f;
  }
}
#endif

// The same rule for a device: one token, called by one thread. A backend that compiles device code checks it against the host
// function on random logits before it uses it.
extern "C" __device__ void noisy_gate_noisy_top_k(const float* logits, const float* uniform, unsigned experts, unsigned k,
                                                  const double* parameters, float* noisy, int* ids, float* weights) {
  for (unsigned e = 0; e < experts; ++e) {
    const double radius = sqrt(-2 * log(double(uniform[2 * e])));
    noisy[e] = logits[e] + float(parameters[0] * radius * cos(6.283185307179586 * double(uniform[2 * e + 1])));
  }
  float best = 0, sum = 0;
  for (unsigned slot = 0; slot < k; ++slot) {
    unsigned top = 0;
    for (unsigned e = 1; e < experts; ++e)
      if (noisy[e] > noisy[top]) top = e;
    if (slot == 0) best = noisy[top];
    ids[slot] = int(top);
    sum += weights[slot] = expf(noisy[top] - best);
    noisy[top] = -INFINITY;
  }
  for (unsigned slot = 0; slot < k; ++slot) weights[slot] /= sum;
}

// The rule of NoisyTopK for one token on a device.
#include <switchyard/device.h>

SY_DEVICE unsigned sy_device_route(const sy_device_in* in, int* id, float* weight, unsigned char*) {
  const unsigned long long seed = (unsigned long long)in->parameters[1];
  float* const noisy = in->work;
  for (unsigned e = 0; e < in->experts; ++e) {  // Box and Muller
    const double radius = sqrt(-2 * log(double(sy_device_random(in, seed, 2 * e))));
    const double noise = radius * cos(2 * 3.141592653589793 * double(sy_device_random(in, seed, 2 * e + 1)));
    noisy[e] = in->logits[e] + float(in->parameters[0] * noise);  // a muted expert's -inf stays
  }
  float best = 0, sum = 0;
  unsigned used = 0;
  for (; used < in->k; ++used) {
    unsigned top = 0;
    for (unsigned e = 1; e < in->experts; ++e)  // ties: the lower id
      if (noisy[e] > noisy[top]) top = e;
    if (noisy[top] == -INFINITY) break;
    if (used == 0) best = noisy[top];
    id[used] = int(top);
    sum += weight[used] = expf(noisy[top] - best);
    noisy[top] = -INFINITY;
  }
  for (unsigned slot = 0; slot < used; ++slot) weight[slot] /= sum;
  return used;
}

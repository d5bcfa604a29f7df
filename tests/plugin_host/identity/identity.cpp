// The scheme that decides like softmax top-k with renormalised weights: what a plugin costs by itself is what it costs
// beyond the built-in top_k (tests/plugin_host/measure_identity.py).
#include <switchyard/plugin.h>

#include <math.h>

static int route(void*, const sy_scheme_in* in, sy_scheme_out* out, void*) {
  for (uint32_t t = 0; t < in->tokens; ++t) {
    const float* z = in->logits + t * in->experts;
    int32_t* id = out->id + t * in->slots;
    float* weight = out->weight + t * in->slots;
    uint32_t used = 0;
    for (uint32_t e = 0; e < in->experts; ++e) {  // insertion into the k largest
      if (isinf(z[e]) || (used == in->k && z[e] <= z[id[used - 1]])) continue;
      uint32_t at = used < in->k ? used++ : used - 1;
      for (; at > 0 && z[id[at - 1]] < z[e]; --at) id[at] = id[at - 1];
      id[at] = (int32_t)e;
    }
    float sum = 0;
    for (uint32_t s = 0; s < used; ++s) sum += weight[s] = expf(z[id[s]] - z[id[0]]);
    for (uint32_t s = 0; s < used; ++s) weight[s] /= sum;
    out->count[t] = used;
  }
  return 0;
}

static int init(const sy_host*, void** self, void*) {
  *self = nullptr;
  return 0;
}
static const sy_scheme kScheme = {sizeof(sy_scheme), 0, 0, 0, route};
static const sy_scheme* scheme(void*, const char*) {
  return &kScheme;
}
static const sy_plugin kPlugin = {
    sizeof(sy_plugin), SY_MAGIC, SY_COMPILER_TAG, SY_CORE_CONTRACT, 0,       0,       init,
    nullptr,           scheme,   nullptr,         nullptr,          nullptr, nullptr, nullptr};
extern "C" SY_EXPORT const sy_plugin* switchyard_plugin(void) {
  return &kPlugin;
}

#include "engine/plugin_host/fenced.h"

#include <cmath>

#include <fmt/format.h>

namespace switchyard {

std::string wrong_slots(const sy_scheme_in& in, const sy_scheme_out& out) {
  for (uint32_t t = 0; t < in.tokens; ++t) {
    const uint32_t count = out.count[t];
    if (count < 1 || count > in.slots) return fmt::format("it filled {} slots of {}", count, in.slots);
    const int32_t* id = out.id + size_t(t) * in.slots;
    for (uint32_t slot = 0; slot < count; ++slot) {
      if (id[slot] < 0 || uint32_t(id[slot]) >= in.experts)
        return fmt::format("it chose expert {} of {}", id[slot], in.experts);
      if (in.logits[size_t(t) * in.experts + uint32_t(id[slot])] == -INFINITY)
        return fmt::format("it chose expert {}, which is muted", id[slot]);
      for (uint32_t before = 0; before < slot; ++before)
        if (id[before] == id[slot]) return fmt::format("it chose expert {} twice", id[slot]);
      if (!std::isfinite(out.weight[size_t(t) * in.slots + slot])) return "a weight is not finite";
      if (out.flags[size_t(t) * in.slots + slot] > SY_SLOT_FORCED) return "a flag is unknown";
    }
  }
  return {};
}

}  // namespace switchyard

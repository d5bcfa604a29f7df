// See kernels.h.
#include "engine/backend/cpu/kernels.h"

#include <algorithm>

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels_isa.h"

namespace switchyard::cpu {

int64_t panel_floats(int64_t cols) {
  constexpr int64_t kPanelFloats = 48 * 1024;  // 192 KiB of a second-level cache of 512 KiB and more
  const int64_t rows = std::clamp<int64_t>(kPanelFloats / std::max<int64_t>(cols, 1) / 4 * 4, 4, 64);
  return rows * cols;
}

const Kernels& kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  (void)isa;
  return kPortableKernels;
}

}  // namespace switchyard::cpu

// See kernels.h.
#include "engine/backend/cpu/kernels.h"

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels_isa.h"

namespace switchyard::cpu {

const Kernels& kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  (void)isa;
  return kPortableKernels;
}

}  // namespace switchyard::cpu

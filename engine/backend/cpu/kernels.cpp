// See kernels.h.
#include "engine/backend/cpu/kernels.h"

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels_isa.h"

namespace switchyard::cpu {
#if defined(__x86_64__)
namespace {

Kernels amx_kernels() {
  Kernels all = kAvx512Kernels;
  all.isa = Isa::kAmx;
  all.dot_rows = dot_rows_amx;
  all.packed_floats = packed_floats_amx;
  all.pack = pack_amx;
  return all;
}

}  // namespace
#endif

const Kernels& kernels(Isa isa) {
#if defined(__x86_64__)
  static const Kernels amx = amx_kernels();
  if (isa == Isa::kAmx) return amx;
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  (void)isa;
  return kPortableKernels;
}

}  // namespace switchyard::cpu

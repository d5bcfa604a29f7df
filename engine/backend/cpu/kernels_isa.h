// The tables that kernels.cpp chooses from. Only for kernels*.cpp.
#pragma once

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;  // x86-64 builds only
extern const Kernels kAvx512Kernels;

}  // namespace switchyard::cpu

// The tables that kernels.cpp chooses from. Only for kernels*.cpp.
#pragma once

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;  // x86-64 builds only
extern const Kernels kAvx512Kernels;

// kernels_amx.cpp: what differs from AVX-512.
int64_t packed_floats_amx(Stored type, int count, int64_t cols);
void pack_amx(const float* const* x, int count, int64_t cols, float* packed);
void dot_rows_amx(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens);

}  // namespace switchyard::cpu

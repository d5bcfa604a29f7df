// Which instruction set the kernels use, chosen once per process. Any thread.
#pragma once

#include <span>
#include <string_view>

#include "engine/base/result.h"

namespace switchyard::cpu {

enum class Isa { kPortable, kAvx2, kAvx512, kAmx };

std::string_view name(Isa isa);   // "AVX-512", for people
std::string_view token(Isa isa);  // "avx512", the value of SWITCHYARD_ISA

// The levels this machine runs, weakest first; kPortable always.
// AVX2 needs AVX2, FMA and F16C; AVX-512 needs F, BW, DQ and VL; AMX needs AVX-512, AMX-TILE, AMX-BF16 and the
// kernel's leave to use the tile registers, which the first call asks for.
std::span<const Isa> host_isas();

// The strongest level, or the one SWITCHYARD_ISA (portable, avx2, avx512, amx) asks for; kUsage when the
// machine lacks it or the word is unknown.
Result<Isa> choose_isa();

}  // namespace switchyard::cpu

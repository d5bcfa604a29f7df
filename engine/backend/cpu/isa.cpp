// See isa.h.
#include "engine/backend/cpu/isa.h"

#include <cstdlib>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace switchyard::cpu {
namespace {

#if defined(__x86_64__)
// Linux saves tile registers only for processes that asked (Documentation/arch/x86/xstate.rst); once for all threads.
bool tiles_allowed() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::kPortable};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return found;
  found.push_back(Isa::kAvx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back(Isa::kAvx512);
  else
    return found;
  if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && tiles_allowed())
    found.push_back(Isa::kAmx);
#endif
  return found;
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "AVX2";
    case Isa::kAvx512:
      return "AVX-512";
    case Isa::kAmx:
      return "AMX";
  }
  return "";
}

std::string_view token(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

std::span<const Isa> host_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Result<Isa> choose_isa() {
  const char* wanted = std::getenv("SWITCHYARD_ISA");
  if (wanted == nullptr || *wanted == '\0') return host_isas().back();
  std::string offered;
  for (const Isa isa : host_isas()) {
    if (token(isa) == wanted) return isa;
    offered += (offered.empty() ? "" : ", ") + std::string(token(isa));
  }
  return fail(ErrorCode::kUsage, "\"" + std::string(wanted) + "\" is not an instruction set of this machine.",
              "SWITCHYARD_ISA", "Use one of: " + offered + ", or leave it unset.");
}

}  // namespace switchyard::cpu

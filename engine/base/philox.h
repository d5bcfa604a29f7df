// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011). The same counter and key give the same words on
// every machine and in any order, so that what is drawn from them can be replayed. Pure; host and device.
#pragma once

#include <array>
#include <cstdint>

namespace switchyard {

constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53) * counter[0];
    const uint64_t b = uint64_t(0xCD9E8D57) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1],
               uint32_t(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// In (0, 1), never an end.
constexpr double unit_interval(uint32_t word) { return (word + 0.5) / 4294967296.0; }

}  // namespace switchyard

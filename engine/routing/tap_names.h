// Taps by the names of the command line (--taps).
#pragma once

#include <cstdint>

#include "engine/routing/frame.h"

namespace switchyard {

struct TapName {
  const char* name;
  uint8_t tap;
};
inline constexpr TapName kTapNames[] = {{"out_norm", Taps::kOutNorm}, {"block_cos", Taps::kBlockCos}, {"pred_gate", Taps::kPredGate}};

}  // namespace switchyard

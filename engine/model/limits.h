// What a config.json may ask for (reliability.md, section 4). Checked before anything of that size is made.
#pragma once

namespace switchyard {

inline constexpr int kMaxLayers = 1024;
inline constexpr int kMaxExperts = 65'535;
inline constexpr int kMaxExpertsInAll = 1'000'000;
inline constexpr int kMaxHidden = 1 << 20;
inline constexpr int kMaxVocab = 1 << 24;
inline constexpr int kMaxContext = 1 << 24;

}  // namespace switchyard

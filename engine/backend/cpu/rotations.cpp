// See rotations.h.
#include "engine/backend/cpu/rotations.h"

#include <cmath>

namespace switchyard::cpu {

// The angle is a float product, as transformers computes it; its cosine is exact to a float.
void Rotations::prepare(int position, int count, int length) {
  for (size_t i = 0; i < ropes_.size(); ++i) {
    const RopeSpec& rope = ropes_[i];
    Angles& angles = angles_[i];
    RopeFrequencies& in_force = angles.in_force;
    if (rope.growth != RopeGrowth::kNone || in_force.inv_freq.empty()) in_force = rope_frequencies(rope, length);
    const size_t pairs = size_t(rope.dims) / 2;
    angles.cosines.resize(size_t(count) * pairs);
    angles.sines.resize(size_t(count) * pairs);
    for (int token = 0; token < count; ++token)
      for (size_t pair = 0; pair < pairs; ++pair) {
        const float angle = float(position + token) * in_force.inv_freq[pair];
        angles.cosines[size_t(token) * pairs + pair] = std::cos(angle) * in_force.attention_factor;
        angles.sines[size_t(token) * pairs + pair] = std::sin(angle) * in_force.attention_factor;
      }
  }
}

// Pairs (i, i + dims / 2), or (2i, 2i + 1) where interleaved; the rest of a head passes through.
void Rotations::rotate(int rope, int token, float* heads, int count, int64_t apart) const {
  if (rope < 0) return;
  const bool half = ropes_[rope].kind == RopeKind::kHalf;
  const int pairs = ropes_[rope].dims / 2, first = half ? 1 : 2, other = half ? pairs : 1;
  const float* cosine = angles_[rope].cosines.data() + size_t(token) * pairs;
  const float* sine = angles_[rope].sines.data() + size_t(token) * pairs;
  for (int head = 0; head < count; ++head, heads += apart)
    for (int i = 0; i < pairs; ++i) {
      const float a = heads[i * first], b = heads[i * first + other];
      heads[i * first] = a * cosine[i] - b * sine[i];
      heads[i * first + other] = b * cosine[i] + a * sine[i];
    }
}

}  // namespace switchyard::cpu

// See edited_weights.h.
#include "engine/routing/edited_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace switchyard {
namespace {

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
  return sum;
}

// Turns `own` in the plane of both, by the angle, with `towards` on the side that it turns to.
void rotate(std::span<const float> own, std::span<const float> towards, double degrees, std::span<float> out) {
  const double length = std::sqrt(dot(own, own)), along = length > 0 ? dot(own, towards) / (length * length) : 0;
  double across = 0;  // squared length of the part of `towards` that is square to `own`
  for (size_t i = 0; i < own.size(); ++i) across += std::pow(towards[i] - along * own[i], 2);
  const double reach = std::sqrt(dot(towards, towards));
  if (!(length > 0) || !(std::sqrt(across) > 1e-6 * reach)) {
    std::copy(own.begin(), own.end(), out.begin());
    return;
  }
  const double angle = degrees * std::numbers::pi / 180, stay = std::cos(angle);
  const double turn = std::sin(angle) * length / std::sqrt(across);
  for (size_t i = 0; i < own.size(); ++i)
    out[i] = static_cast<float>(stay * own[i] + turn * (towards[i] - along * own[i]));
}

}  // namespace

float rounded(DType type, float value) {
  if (std::isnan(value)) return value;
  if (type == DType::kBF16) {
    const auto stored = std::bit_cast<uint32_t>(value);
    return std::bit_cast<float>((stored + 0x7FFFu + (stored >> 16 & 1u)) & 0xFFFF0000u);
  }
  if (type != DType::kF16 || std::isinf(value)) return value;
  // A half has 11 significant bits, and steps of 2^-24 below 2^-14.
  int exponent = 0;
  std::frexp(value, &exponent);
  const int step = std::max(exponent - 11, -24);
  const float nearest = std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
  return std::abs(nearest) <= 65504.0f ? nearest : std::copysign(HUGE_VALF, value);
}

void mix_weights(const ExpertMix& mix, std::span<const float* const> sources, DType type, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (size_t share = 0; share < mix.size(); ++share) sum += double(mix[share].weight) * sources[share][i];
    out[i] = rounded(type, static_cast<float>(sum));
  }
}

void edited_row(const RowSource& source, std::span<const float> own, std::span<const float> other, DType type,
                std::span<float> out) {
  switch (source.kind) {
    case RowSource::Kind::kOwn: std::copy(own.begin(), own.end(), out.begin()); return;
    case RowSource::Kind::kCopy: std::copy(other.begin(), other.end(), out.begin()); return;
    case RowSource::Kind::kRotate: rotate(own, other, source.degrees, out); break;
    case RowSource::Kind::kValues: std::copy(source.values->begin(), source.values->end(), out.begin()); break;
  }
  for (float& value : out) value = rounded(type, value);
}

}  // namespace switchyard

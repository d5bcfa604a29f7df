// Arithmetic that refuses to wrap: every size that comes from a file goes through here.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace switchyard {

template <std::integral T>
std::optional<T> checked_mul(T a, T b) {
  T out;
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

template <std::integral T>
std::optional<T> checked_add(T a, T b) {
  T out;
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}

}  // namespace switchyard

// Random matrices in the types that weights are stored in, the same numbers as doubles for a naive computation, and
// what tests demand of both.
#pragma once

#include <cstring>
#include <functional>
#include <random>

#include "engine/backend/cuda/kernels.h"
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {

inline uint16_t rounded_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float out = 0;
  std::memcpy(&out, &bits, 4);
  return out;
}

class Random {
 public:
  explicit Random(uint32_t seed) : random_(seed) {}
  float normal(float spread = 1) { return spread * std::normal_distribution<float>()(random_); }
  std::vector<float> vector(int count, float spread = 1) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) value = normal(spread);
    return out;
  }
  int below(int end) { return int(random_() % unsigned(end)); }

 private:
  std::mt19937 random_;
};

// A matrix on the device; values: what it holds, exactly.
struct TestMatrix {
  TestMatrix(int the_rows, int the_cols, Stored type, Random& random)
      : rows(the_rows), cols(the_cols), values(size_t(rows * cols)), bytes(size_t(rows * cols * stored_bytes(type))) {
    std::vector<unsigned char> stored(bytes.size());
    for (size_t i = 0; i < values.size(); ++i) {
      float value = random.normal(1 / std::sqrt(float(cols)));
      if (type == Stored::kF32) {
        std::memcpy(stored.data() + 4 * i, &value, 4);
      } else if (type == Stored::kBF16) {
        const uint16_t half = rounded_bf16(value);
        std::memcpy(stored.data() + 2 * i, &half, 2);
        value = from_bf16(half);
      } else {  // a whole number of 2^-9: exact in f16, by its bits
        const int steps = std::clamp(int(value * 512), -1000, 1000);
        value = float(steps) / 512;
        uint16_t half = 0;
        if (steps != 0) {
          int exponent = 0;
          const float fraction = std::frexp(std::abs(value), &exponent);  // in [1/2, 1)
          half = uint16_t((exponent + 14) << 10 | (int(fraction * 2048) - 1024));
        }
        half = uint16_t(half | (steps < 0 ? 0x8000 : 0));
        std::memcpy(stored.data() + 2 * i, &half, 2);
      }
      values[i] = value;
    }
    bytes.set(stored);
    matrix = {bytes.data(), rows, cols, type};
  }
  double dot(int row, const std::vector<double>& x) const {
    double sum = 0;
    for (int c = 0; c < cols; ++c) sum += double(values[size_t(row) * size_t(cols) + size_t(c)]) * x[size_t(c)];
    return sum;
  }
  int rows, cols;
  std::vector<float> values;
  OnDevice<unsigned char> bytes;
  Matrix matrix;
};

inline std::vector<double> doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

inline std::vector<double> rms_normed(std::vector<double> x, const std::vector<float>& weight, double eps) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double factor = 1 / std::sqrt(squares / double(x.size()) + eps);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= factor * weight[i];
  return x;
}

// Runs it under every order of threads; the bits may not depend on it.
inline std::vector<float> under_all_orders(const std::function<std::vector<float>()>& run) {
  std::vector<float> first;
  for (const uint64_t order : thread_orders()) {
    const WithOrder with(order);
    const std::vector<float> out = run();
    if (first.empty()) first = out;
    EXPECT_EQ(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)), 0) << "order " << order;
  }
  return first;
}

inline void expect_near(const std::vector<float>& got, const std::vector<double>& expected, double tolerance = 2e-5) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << "at " << i;
}

}  // namespace switchyard::cuda::testing

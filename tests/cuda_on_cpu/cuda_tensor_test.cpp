// Products on the tensor cores: exact in their inputs, one order of sums. How they multiply
// and run experts, over more shapes: cuda_experts_test.cpp.
#include <cmath>
#include <initializer_list>

#include "tests/cuda_on_cpu/numbers.h"

namespace switchyard::cuda::testing {
namespace {

// bf16 matrices: no bit of an fp32 input is lost. The result is what the last bits of the inputs are worth.
TEST(TensorTiles, KeepEveryBitOfTheInputs) {
  Random random(18);
  const int tokens = 40, cols = 64;
  std::vector<unsigned char> signs(size_t(8 * cols * 2));
  for (int row = 0; row < 8; ++row)
    for (int c = 0; c < cols; ++c) {
      const uint16_t one = rounded_bf16(c / 2 % 8 == row ? (c % 2 == 0 ? 1.0f : -1.0f) : 0.0f);
      std::memcpy(signs.data() + (row * cols + c) * 2, &one, 2);
    }
  const OnDevice<unsigned char> matrix(signs);
  std::vector<float> x;
  std::vector<double> expected(size_t(tokens * 8));
  for (int t = 0; t < tokens; ++t)
    for (int c = 0; c < cols; ++c) {
      // Neighbours differ in their last bits alone.
      const float value = c % 2 == 1 ? std::nextafter(x.back(), 4.0f) : 1 + float(random.below(1 << 23)) * 0x1p-23f;
      x.push_back(value);
      expected[size_t(t * 8 + c / 2 % 8)] += c % 2 == 0 ? double(value) : -double(value);
    }
  const OnDevice<float> in(x);
  const auto got = under_all_orders([&] {
    const OnDevice<float> out{size_t(tokens * 8)};
    launch_multiply_tiles(stream(), {.in = in.data(),
                                     .tokens = tokens,
                                     .matrix = {matrix.data(), 8, cols, Stored::kBF16},
                                     .out = out.data(),
                                     .step = 8});
    return out.get();
  });
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(double(got[i]), expected[i]) << i;
  EXPECT_EQ(expected[0], -4 * 0x1p-23);
}

// An output's sum has one order, whichever tokens are computed beside it and in whichever tile it stands; an infinite
// input is infinite, and NaN where it meets a 0, in its own outputs alone.
TEST(TensorTiles, GiveATokenTheSameBitsInEveryCompany) {
  Random random(19);
  const int tokens = 150, rows = 70, cols = 104;
  const TestMatrix matrix(rows, cols, Stored::kBF16, random);
  auto x = random.vector(tokens * cols, 3);
  x[size_t(7 * cols + 5)] = INFINITY, x[size_t(9 * cols)] = NAN;
  const OnDevice<float> in(x);
  const auto run = [&](std::initializer_list<int> pieces) {
    const OnDevice<float> out{size_t(tokens * rows)};
    int first = 0;
    for (const int count : pieces) {
      launch_multiply_tiles(stream(), {.in = in.data() + first * cols,
                                       .tokens = count,
                                       .matrix = matrix.matrix,
                                       .out = out.data() + first * rows,
                                       .step = rows});
      first += count;
    }
    EXPECT_EQ(first, tokens);
    return out.get();
  };
  const auto whole = run({150});
  for (const auto& pieces : {run({1, 63, 86}), run({100, 50}), run({17, 17, 17, 99})})
    EXPECT_EQ(std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)), 0);
  for (int t = 0; t < tokens; ++t)
    for (int row = 0; row < rows; ++row) {
      const float value = whole[size_t(t * rows + row)];
      if (t == 7 || t == 9)
        EXPECT_FALSE(std::isfinite(value));
      else
        EXPECT_TRUE(std::isfinite(value));
    }
}

}  // namespace
}  // namespace switchyard::cuda::testing

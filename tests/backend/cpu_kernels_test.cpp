// Every kernel at every instruction set of this machine against plain double-precision sums written
// here, over odd shapes and unaligned storage; and the promise that a result does not depend on what is
// computed beside it. Levels the machine lacks are reported as skipped.
#include "engine/backend/cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/isa.h"
#include "engine/model/ggml_blocks.h"

namespace switchyard::cpu {
namespace {

float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// The value of IEEE binary16, from its definition.
double half_value(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = h >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}
double bf16_value(uint16_t b) {
  return as_float(uint32_t(b) << 16);
}

// A random matrix in storage that is aligned to nothing, and the same numbers as doubles.
struct TestMatrix {
  TestMatrix(Stored type, int64_t rows, int64_t cols, std::mt19937& random)
      : storage(1 + rows * cols * stored_block(type).bytes) {
    view = {storage.data() + 1, type, rows, cols};
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = normal(random);
      unsigned char* at = storage.data() + 1 + i * stored_block(type).bytes;
      if (type == Stored::kF32) {
        std::memcpy(at, &x, 4);
        values.push_back(x);
      } else if (type == Stored::kBF16) {
        const uint16_t b = uint16_t(bits_of(x) >> 16);
        std::memcpy(at, &b, 2);
        values.push_back(bf16_value(b));
      } else {
        const uint16_t h = uint16_t(0x3800 + random() % 0x0800 + (random() % 2 ? 0x8000 : 0));  // 0.5 to 2
        std::memcpy(at, &h, 2);
        values.push_back(half_value(h));
      }
    }
  }
  std::vector<unsigned char> storage;
  Matrix view;
  std::vector<double> values;
};

struct TestTokens {
  TestTokens(int count, int64_t cols, int64_t rows, std::mt19937& random)
      : in(count, std::vector<float>(cols)), out(count, std::vector<float>(rows, kUntouched)) {
    std::normal_distribution<float> normal;
    for (int t = 0; t < count; ++t) {
      for (float& x : in[t]) x = normal(random);
      x.push_back(in[t].data());
      y.push_back(out[t].data());
      weight.push_back(normal(random));
    }
  }
  TokenRows rows(int first, int count, bool weighted) const {
    return {count, x.data() + first, y.data() + first, weighted ? weight.data() + first : nullptr};
  }
  static constexpr float kUntouched = -77.25f;
  std::vector<std::vector<float>> in, out;
  std::vector<const float*> x;
  std::vector<float*> y;
  std::vector<float> weight;
};

class CpuKernels : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!std::ranges::count(host_isas(), GetParam())) GTEST_SKIP() << "this machine has no " << name(GetParam());
    k = &kernels(GetParam());
    ASSERT_EQ(k->isa, GetParam());
  }
  // dot_rows as the backend calls it: with its inputs packed where the kernels ask for that.
  void dot_rows(const Matrix& w, int64_t begin, int64_t end, TokenRows tokens) const {
    AlignedFloats packed(size_t(k->packed_floats(w.type, tokens.count, w.cols)));
    if (packed.size() > 0) {
      k->pack(tokens.x, tokens.count, w.cols, packed.data());
      tokens.packed = packed.data();
    }
    k->dot_rows(w, begin, end, tokens);
  }
  const Kernels* k = nullptr;
  std::mt19937 random{7};
};
INSTANTIATE_TEST_SUITE_P(All, CpuKernels, testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx),
                         [](const auto& info) { return std::string(token(info.param)); });

TEST_P(CpuKernels, LoadsEveryStoredValueExactly) {
  std::vector<uint16_t> all(65536);
  for (int i = 0; i < 65536; ++i) all[i] = uint16_t(i);
  std::vector<float> out(65536);
  for (const Stored type : {Stored::kBF16, Stored::kF16}) {
    k->load_row({reinterpret_cast<const unsigned char*>(all.data()), type, 1, 65536}, 0, out.data());
    for (int i = 0; i < 65536; ++i) {
      const double expected = type == Stored::kBF16 ? bf16_value(all[i]) : half_value(all[i]);
      if (std::isnan(expected))
        EXPECT_TRUE(std::isnan(out[i])) << i;
      else
        ASSERT_EQ(bits_of(out[i]), bits_of(float(expected))) << i;
    }
  }
}

TEST_P(CpuKernels, DotRowsEqualsDoubleSums) {
  for (const Stored type : {Stored::kF32, Stored::kBF16, Stored::kF16})
    for (const int64_t cols : {1, 2, 7, 8, 15, 16, 17, 31, 64, 100, 257, 1025})
      for (const int64_t rows : {1, 3, 4, 5, 8, 9, 17, 67})
        for (const int count : {1, 2, 3, 4, 6, 7, 13, 25, 35})
          for (const bool weighted : {false, true}) {
            const TestMatrix w(type, rows, cols, random);
            TestTokens tokens(count, cols, rows, random);
            const int64_t begin = rows / 3, end = rows - rows / 5;
            dot_rows(w.view, begin, end, tokens.rows(0, count, weighted));
            for (int t = 0; t < count; ++t)
              for (int64_t r = 0; r < rows; ++r) {
                double dot = 0, size = 0;
                for (int64_t i = 0; i < cols; ++i) {
                  dot += w.values[r * cols + i] * tokens.in[t][i];
                  size += std::abs(w.values[r * cols + i] * tokens.in[t][i]);
                }
                if (r < begin || r >= end) {
                  ASSERT_EQ(tokens.out[t][r], TestTokens::kUntouched);
                } else if (weighted) {
                  const double expected = TestTokens::kUntouched + double(tokens.weight[t]) * dot;
                  ASSERT_NEAR(tokens.out[t][r], expected, 2e-6 * (std::abs(tokens.weight[t]) * size + 80));
                } else {
                  ASSERT_NEAR(tokens.out[t][r], dot, 2e-6 * size)
                      << rows << "x" << cols << " token " << t << " of " << count;
                }
              }
          }
}

// A matrix stored in blocks, and its values: of GGUF formats by the decoder that is checked against the package gguf,
// of the others by their definitions.
struct BlockMatrix {
  BlockMatrix(Stored type, int64_t rows, int64_t cols, std::mt19937& random) : values(size_t(rows * cols)) {
    const StoredBlock block = stored_block(type);
    view = {nullptr, type, rows, cols};
    bytes.resize(size_t(rows * cols / block.elements * block.bytes));
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
    const auto tame_half = [&](size_t at) { bytes[at + 1] = static_cast<unsigned char>(bytes[at + 1] % 8 + 0x28); };
    for (size_t at = 0; at < bytes.size(); at += size_t(block.bytes)) {
      if (type == Stored::kQ8_0 || type == Stored::kQ4_K) tame_half(at);
      if (type == Stored::kQ4_K) tame_half(at + 2);
      if (type == Stored::kMxfp4) bytes[at] = static_cast<unsigned char>(120 + bytes[at] % 12);
    }
    view.data = bytes.data();
    if (type == Stored::kMxfp4Apart) {
      for (int64_t i = 0; i < rows * cols / 32; ++i) exponents.push_back(static_cast<unsigned char>(120 + random() % 12));
      view.scales = exponents.data();
      view.scales_apart = cols / 32;
      constexpr double kE2M1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
      for (int64_t i = 0; i < rows * cols; ++i) {
        const int nibble = bytes[size_t(i / 2)] >> (i % 2 * 4) & 15;
        values[size_t(i)] = float(std::ldexp(nibble & 8 ? -kE2M1[nibble & 7] : kE2M1[nibble], exponents[size_t(i / 32)] - 127));
      }
    } else if (type == Stored::kFp8) {
      constexpr int64_t kRows = 4, kShift = 5;
      const int64_t wide = (cols + 31) >> kShift;
      for (int64_t i = 0; i < (rows + kRows - 1) / kRows * wide; ++i) scales.push_back(std::ldexp(1 + float(random() % 1000) / 1000, -3));
      view.scales = reinterpret_cast<const unsigned char*>(scales.data());
      view.scales_apart = wide * 4;
      view.scale_rows = kRows;
      view.scale_shift = kShift;
      for (int64_t i = 0; i < rows * cols; ++i) {
        unsigned char& byte = bytes[size_t(i)];
        if ((byte & 0x7f) == 0x7f) byte ^= 1;  // NaN
        const int exponent = byte >> 3 & 15, mantissa = byte & 7;
        const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
        values[size_t(i)] = float(byte & 0x80 ? -size : size) * scales[size_t(i / cols / kRows * wide + (i % cols >> kShift))];
      }
    } else {
      const GgmlType ggml = type == Stored::kQ8_0 ? GgmlType::kQ8_0 : type == Stored::kQ4_K ? GgmlType::kQ4_K : GgmlType::kMXFP4;
      decode_ggml(ggml, reinterpret_cast<const std::byte*>(bytes.data()), int64_t(bytes.size()) / block.bytes, values.data());
    }
  }
  Matrix plain() const { return {reinterpret_cast<const unsigned char*>(values.data()), Stored::kF32, view.rows, view.cols}; }

  Matrix view;
  std::vector<unsigned char> bytes, exponents;
  std::vector<float> values, scales;
};
constexpr Stored kInBlocks[] = {Stored::kQ8_0, Stored::kQ4_K, Stored::kMxfp4, Stored::kMxfp4Apart, Stored::kFp8};

TEST_P(CpuKernels, BlocksGiveTheBitsOfTheirDecodedValues) {
  for (const Stored type : kInBlocks)
    for (const int64_t cols : {256, 1024})
      for (const int64_t rows : {1, 8, 13})
        for (const int count : {1, 2, 5, 7, 20}) {
          const BlockMatrix w(type, rows, cols, random);
          std::vector<float> row(static_cast<size_t>(cols));
          for (int64_t r = 0; r < rows; ++r) {
            k->load_row(w.view, r, row.data());
            for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(row[size_t(c)], w.values[size_t(r * cols + c)]) << int(type) << " " << r << " " << c;
          }
          const TestTokens in_blocks(count, cols, rows, random);
          TestTokens decoded = in_blocks;
          for (int t = 0; t < count; ++t) decoded.y[size_t(t)] = decoded.out[size_t(t)].data();
          dot_rows(w.view, 0, rows, in_blocks.rows(0, count, false));
          dot_rows(w.plain(), 0, rows, decoded.rows(0, count, false));
          for (int t = 0; t < count; ++t)
            for (int64_t r = 0; r < rows; ++r)
              ASSERT_EQ(bits_of(in_blocks.out[size_t(t)][size_t(r)]), bits_of(decoded.out[size_t(t)][size_t(r)])) << int(type) << " row " << r << " token " << t << " of " << count;
        }
}

TEST_P(CpuKernels, RowsOfAStridedMatrixOfBlocks) {
  const BlockMatrix w(Stored::kMxfp4Apart, 6, 64, random);
  Matrix odd = w.view;  // as gpt-oss interleaves gate and up
  odd.data += row_bytes(w.view);
  odd.scales += w.view.scales_apart;
  odd.rows = 3;
  odd.apart = 2 * row_bytes(w.view);
  odd.scales_apart = 2 * w.view.scales_apart;
  std::vector<float> row(64);
  for (int64_t r = 0; r < 3; ++r) {
    k->load_row(odd, r, row.data());
    for (size_t c = 0; c < 64; ++c) ASSERT_EQ(row[c], w.values[size_t(2 * r + 1) * 64 + c]);
  }
}

TEST_P(CpuKernels, UnknownNumbersOfBlocksAreNaN) {
  std::vector<unsigned char> fp8(16, 0x38), nan(16, 0x38);
  nan[5] = 0xff;
  const float scale = 2;
  Matrix w{nan.data(), Stored::kFp8, 1, 16};
  w.scales = reinterpret_cast<const unsigned char*>(&scale);
  w.scale_shift = 62;
  std::vector<float> row(16);
  k->load_row(w, 0, row.data());
  for (size_t i = 0; i < 16; ++i)
    if (i == 5)
      EXPECT_TRUE(std::isnan(row[i]));
    else
      EXPECT_EQ(row[i], 2.0f);
  const unsigned char exponent = 255;
  Matrix x{fp8.data(), Stored::kMxfp4Apart, 1, 32};
  x.scales = &exponent;
  std::vector<float> values(32);
  k->load_row(x, 0, values.data());
  EXPECT_TRUE(std::isnan(values[0]));
}

TEST_P(CpuKernels, DotRowsDoesNotDependOnTheOtherRowsAndTokens) {
  for (const Stored type : {Stored::kF32, Stored::kBF16, Stored::kF16})
    for (const int64_t cols : {30, 256, 515}) {
      const int64_t rows = 83;
      const int count = 29;
      const TestMatrix w(type, rows, cols, random);
      TestTokens together(count, cols, rows, random);
      TestTokens alone = together;
      for (int t = 0; t < count; ++t) alone.y[t] = alone.out[t].data();
      dot_rows(w.view, 0, rows, together.rows(0, count, false));
      for (int t = 0; t < count; ++t)
        for (int64_t r = 0; r < rows; ++r) dot_rows(w.view, r, r + 1, alone.rows(t, 1, false));
      for (int t = 0; t < count; ++t) {
        std::vector<uint32_t> a(rows), b(rows);
        std::memcpy(a.data(), together.y[t], rows * 4);
        std::memcpy(b.data(), alone.out[t].data(), rows * 4);
        ASSERT_EQ(a, b) << "token " << t;
      }
    }
}

TEST_P(CpuKernels, GluEqualsItsFormula) {
  std::vector<float> gate, up;
  for (int i = -1200; i <= 1200; ++i) {
    gate.push_back(i * 0.1f);
    up.push_back(std::cos(i) * 3);
  }
  std::vector<float> out(gate.size());
  const auto check = [&](Unit unit, auto formula, double tolerance) {
    for (const float scale : {1.0f, 0.3f})
      for (const size_t n : {size_t(1), size_t(19), gate.size()}) {
        k->glu(unit, gate.data(), up.data(), scale, out.data(), int64_t(n));
        for (size_t i = 0; i < n; ++i) {
          const double g = double(scale * gate[i]), expected = formula(g) * double(scale * up[i]);
          ASSERT_NEAR(out[i], expected, tolerance * (std::abs(expected) + 1e-6)) << g;
        }
      }
  };
  check(
      Unit::kSilu, [](double g) { return g / (1 + std::exp(-g)); }, 1e-6);
  check(
      Unit::kRelu, [](double g) { return std::max(g, 0.0); }, 1e-6);
  // 1 + erf and 1 + tanh cancel for negative arguments: an absolute bound there.
  const auto near = [&](Unit unit, auto formula) {
    k->glu(unit, gate.data(), up.data(), 1, out.data(), int64_t(gate.size()));
    for (size_t i = 0; i < gate.size(); ++i)
      ASSERT_NEAR(out[i], formula(double(gate[i])) * up[i], 1e-6 * (1 + std::abs(gate[i] * up[i]))) << gate[i];
  };
  near(Unit::kGelu, [](double g) { return g * 0.5 * (1 + std::erf(g / std::sqrt(2.0))); });
  near(Unit::kGeluTanh,
       [](double g) { return g * 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))); });
}

TEST_P(CpuKernels, RmsNormEqualsItsFormula) {
  std::normal_distribution<float> normal;
  for (const int64_t n : {1, 5, 16, 33, 256, 1000}) {
    std::vector<float> x(n), weight(n), out(n);
    for (float& v : x) v = 3 * normal(random);
    for (float& v : weight) v = normal(random);
    k->rms_norm(x.data(), weight.data(), 1e-5f, out.data(), n);
    double squares = 0;
    for (const float v : x) squares += double(v) * v;
    for (int64_t i = 0; i < n; ++i) {
      const double expected = x[i] / std::sqrt(squares / double(n) + 1e-5) * weight[i];
      ASSERT_NEAR(out[i], expected, 1e-6 * (std::abs(expected) + 1e-3));
    }
  }
}

// Formulas: kernels.h. Sizes beside whole vectors; what lies behind the last element stays untouched.
TEST_P(CpuKernels, ElementwiseKernelsEqualTheirFormulas) {
  std::normal_distribution<float> normal;
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (const int64_t n : {1, 5, 16, 33, 250}) {
    std::vector<float> a(n), b(n), out(n + 1, -77.25f);
    for (int64_t i = 0; i < n; ++i) {
      a[i] = 6 * normal(random);
      b[i] = 6 * normal(random);
    }
    k->glu_oss(a.data(), b.data(), 7.0f, 1.702f, out.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double g = std::min(a[i], 7.0f), u = std::clamp(b[i], -7.0f, 7.0f);
      ASSERT_NEAR(out[i], (u + 1) * g * sigmoid(double(1.702f) * g), 1e-5);
    }
    k->activate(Unit::kSilu, a.data(), 0.5f, out.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(out[i], 0.5 * a[i] * sigmoid(0.5 * a[i]), 1e-5);
    std::vector<float> gated = b;
    k->sigmoid_gate(a.data(), gated.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(gated[i], b[i] * sigmoid(a[i]), 1e-5);
    ASSERT_EQ(out[n], -77.25f);
  }
}

TEST_P(CpuKernels, NotANumberIsNotClampedAway) {
  const float nan = NAN, one = 1;
  float out = 0;
  k->glu_oss(&nan, &one, 7, 1.7f, &out, 1);
  EXPECT_TRUE(std::isnan(out));
  k->glu_oss(&one, &nan, 7, 1.7f, &out, 1);
  EXPECT_TRUE(std::isnan(out));
  k->activate(Unit::kRelu, &nan, 1, &out, 1);
  EXPECT_TRUE(std::isnan(out));
}

TEST_P(CpuKernels, LayerNormEqualsItsFormula) {
  std::normal_distribution<float> normal;
  for (const int64_t n : {1, 5, 16, 33, 256, 1000}) {
    std::vector<float> x(n), weight(n), bias(n), out(n);
    for (float& v : x) v = 5 + 3 * normal(random);
    for (float& v : weight) v = normal(random);
    for (float& v : bias) v = normal(random);
    k->layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, out.data(), n);
    double mean = 0, squares = 0;
    for (const float v : x) mean += double(v) / double(n);
    for (const float v : x) squares += (v - mean) * (v - mean);
    for (int64_t i = 0; i < n; ++i) {
      const double expected = (x[i] - mean) / std::sqrt(squares / double(n) + 1e-5) * weight[i] + bias[i];
      ASSERT_NEAR(out[i], expected, 3e-6 * (std::abs(expected) + 1));
    }
  }
}

// Keys and values of `length` positions in attention blocks, what is never visible filled with NaN.
struct TestKeys {
  TestKeys(int length, int head_dim, std::mt19937& random)
      : head_dim(head_dim),
        value_dim((head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup),
        blocks((length + kKeyBlock - 1) / kKeyBlock),
        keys(size_t(blocks) * kKeyBlock * head_dim, NAN),
        values(size_t(blocks) * kKeyBlock * value_dim, NAN) {
    std::normal_distribution<float> normal;
    for (int j = 0; j < length; ++j)
      for (int d = 0; d < value_dim; ++d) {
        if (d < head_dim) key(j, d) = normal(random);
        value(j, d) = d < head_dim ? normal(random) : 0;
      }
  }
  float& key(int j, int d) { return keys[((size_t(j) / kKeyGroup) * head_dim + d) * kKeyGroup + j % kKeyGroup]; }
  float& value(int j, int d) { return values[size_t(j) * value_dim + d]; }
  int head_dim, value_dim, blocks;
  std::vector<float> keys, values;
};

// Attention of queries that see keys [first, last), block by block.
std::vector<std::vector<float>> attend_all(const Kernels& k, TestKeys& keys, const std::vector<const float*>& q,
                                           const std::vector<int>& first, const std::vector<int>& last, float scale) {
  const int n = int(q.size());
  std::vector<float> largest(n, -INFINITY), sum(n, 0), values(size_t(n) * keys.value_dim, 0),
      scores(kMaxQueries * kKeyBlock);
  std::vector<int> from(n), to(n);
  for (int b = 0; b < keys.blocks; ++b) {
    for (int i = 0; i < n; ++i) {
      from[i] = std::clamp(first[i] - b * kKeyBlock, 0, kKeyBlock);
      to[i] = std::clamp(last[i] - b * kKeyBlock, 0, kKeyBlock);
    }
    k.attend({n, q.data(), from.data(), to.data(), scale}, keys.keys.data() + size_t(b) * kKeyBlock * keys.head_dim,
             keys.values.data() + size_t(b) * kKeyBlock * keys.value_dim, keys.head_dim,
             {largest.data(), sum.data(), values.data()}, scores.data());
  }
  std::vector<std::vector<float>> out(n);
  for (int i = 0; i < n; ++i)
    for (int d = 0; d < keys.head_dim; ++d) out[i].push_back(values[size_t(i) * keys.value_dim + d] / sum[i]);
  return out;
}

TEST_P(CpuKernels, AttentionEqualsDoubleSoftmaxAndSeesNothingElse) {
  std::normal_distribution<float> normal;
  for (const int head_dim : {1, 8, 20, 32, 64, 80, 128})
    for (const int length : {1, 5, 64, 65, 200})
      for (const int count : {1, 2, 3, 4, 7, 8}) {
        TestKeys keys(length, head_dim, random);
        std::vector<std::vector<float>> queries(count, std::vector<float>(head_dim));
        std::vector<const float*> q;
        std::vector<int> first, last;
        for (int i = 0; i < count; ++i) {
          for (float& x : queries[i]) x = 2 * normal(random);
          q.push_back(queries[i].data());
          last.push_back(std::max(1, length - count + 1 + i));         // causal
          first.push_back(i % 2 ? std::max(0, last.back() - 37) : 0);  // every other through a window
        }
        const float scale = 1 / std::sqrt(float(head_dim));
        const auto out = attend_all(*k, keys, q, first, last, scale);
        for (int i = 0; i < count; ++i) {
          double total = 0, most = -INFINITY;
          std::vector<double> expected(head_dim), score(length);
          for (int j = first[i]; j < last[i]; ++j) {
            for (int d = 0; d < head_dim; ++d) score[j] += double(queries[i][d]) * keys.key(j, d);
            most = std::max(most, score[j] *= scale);
          }
          for (int j = first[i]; j < last[i]; ++j) {
            total += std::exp(score[j] - most);
            for (int d = 0; d < head_dim; ++d) expected[d] += std::exp(score[j] - most) * keys.value(j, d);
          }
          for (int d = 0; d < head_dim; ++d)
            ASSERT_NEAR(out[i][d], expected[d] / total, 1e-5) << head_dim << " " << length << " " << i;

          const auto alone = attend_all(*k, keys, {q[i]}, {first[i]}, {last[i]}, scale);
          ASSERT_EQ(0, std::memcmp(alone[0].data(), out[i].data(), head_dim * 4)) << "query " << i << " of " << count;
        }
      }
}

// Values that are the first dimensions of the keys: the same numbers as with values of their own.
TEST_P(CpuKernels, LatentAttentionEqualsAttentionOnItsOwnKeys) {
  std::normal_distribution<float> normal;
  for (const auto& [rank, head_dim] : {std::pair{1, 3}, {8, 8}, {16, 24}, {19, 21}, {64, 80}})
    for (const int length : {1, 63, 64, 130})
      for (const int count : {1, 2, 3, 4, 7}) {
        TestKeys keys(length, head_dim, random);  // what is never visible is NaN
        const int dim = (rank + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
        std::vector<std::vector<float>> queries(count, std::vector<float>(head_dim));
        for (auto& query : queries)
          for (float& x : query) x = normal(random);
        const auto last = [&](int i) { return std::max(1, length - count + 1 + i); };
        const auto first = [&](int i) { return i % 2 ? std::max(0, last(i) - 37) : 0; };
        const auto attend = [&](int begin, int n) {
          std::vector<float> largest(n, -INFINITY), sum(n, 0), values(size_t(n) * dim, 0),
              scores(kMaxQueries * kKeyBlock);
          std::vector<const float*> q;
          std::vector<int> from(n), to(n);
          for (int i = 0; i < n; ++i) q.push_back(queries[begin + i].data());
          for (int b = 0; b < keys.blocks; ++b) {
            for (int i = 0; i < n; ++i) {
              from[i] = std::clamp(first(begin + i) - b * kKeyBlock, 0, kKeyBlock);
              to[i] = std::clamp(last(begin + i) - b * kKeyBlock, 0, kKeyBlock);
            }
            k->attend_latent({n, q.data(), from.data(), to.data(), 0.3f},
                             keys.keys.data() + size_t(b) * kKeyBlock * head_dim, head_dim, rank,
                             {largest.data(), sum.data(), values.data()}, scores.data());
          }
          for (int i = 0; i < n; ++i)
            for (int d = 0; d < dim; ++d) values[size_t(i) * dim + d] /= sum[i];
          return values;
        };
        const std::vector<float> together = attend(0, count);
        for (int i = 0; i < count; ++i) {
          double total = 0;
          std::vector<double> expected(rank);
          for (int j = first(i); j < last(i); ++j) {
            double score = 0;
            for (int d = 0; d < head_dim; ++d) score += double(queries[i][d]) * keys.key(j, d);
            total += std::exp(score * 0.3);
            for (int d = 0; d < rank; ++d) expected[d] += std::exp(score * 0.3) * keys.key(j, d);
          }
          for (int d = 0; d < rank; ++d)
            ASSERT_NEAR(together[size_t(i) * dim + d], expected[d] / total, 1e-5) << rank << " " << length << " " << i;
          const std::vector<float> alone = attend(i, 1);
          ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + size_t(i) * dim, size_t(rank) * 4))
              << "query " << i << " of " << count;
        }
      }
}

TEST(CpuIsa, TheForcedLevelIsTakenAndAnUnknownOneIsRefused) {
  const char* before = std::getenv("SWITCHYARD_ISA");
  const std::string saved = before ? before : "";
  for (const Isa isa : host_isas()) {
    setenv("SWITCHYARD_ISA", std::string(token(isa)).c_str(), 1);
    EXPECT_EQ(choose_isa().value(), isa);
  }
  setenv("SWITCHYARD_ISA", "avx9", 1);
  const auto refused = choose_isa();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_NE(refused.error().message().find("portable"), std::string::npos);
  if (before)
    setenv("SWITCHYARD_ISA", saved.c_str(), 1);
  else
    unsetenv("SWITCHYARD_ISA");
}

}  // namespace
}  // namespace switchyard::cpu

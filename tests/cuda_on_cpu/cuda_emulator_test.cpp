// The emulator against scalar computations, and the mistakes that it must find: a barrier that is missing, reads of
// shared memory nobody wrote, writes past its end, barriers and shuffles that not all threads reach.
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/cuda_on_cpu/cuda_on_cpu.h"

namespace {

using cuda_on_cpu::launch;
using cuda_on_cpu::WithSeed;

constexpr uint64_t kSeeds[] = {0, 1, 2, 3, 4, 5, 6, 7};

// Static and dynamic shared memory, block barriers, shuffles down, an atomic.
template <bool with_barriers>
void block_sum(const float* x, float* out, int n) {
  DYNAMIC_SHARED(float, mine);
  STATIC_SHARED(float, total, 1);
  const unsigned t = threadIdx.x, threads = blockDim.x;
  float sum = 0;
  for (unsigned i = blockIdx.x * threads + t; i < unsigned(n); i += gridDim.x * threads) sum += x[i];
  mine[t] = sum;
  __syncthreads();
  for (unsigned half = threads / 2; half >= 32; half /= 2) {
    if (t < half) mine[t] += mine[t + half];
    if (with_barriers) __syncthreads();
  }
  if (t < 32) {
    sum = mine[t];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, unsigned(by));
    if (t == 0) total[0] = sum, atomicAdd(out, total[0]);
  }
}

float sum_on_device(bool with_barriers, const std::vector<float>& x) {
  float out = 0;
  launch(dim3(7), dim3(256), 256 * sizeof(float), with_barriers ? block_sum<true> : block_sum<false>, x.data(), &out,
         int(x.size()));
  return out;
}

std::vector<float> whole_numbers(int n) {
  std::mt19937 random(3);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& value : out) value = float(random() % 64);
  return out;
}

TEST(Emulator, SumsABlockUnderEverySeed) {
  const std::vector<float> x = whole_numbers(10'000);
  const float expected = std::accumulate(x.begin(), x.end(), 0.0f);  // whole and below 2^24: exact in any order
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    EXPECT_EQ(sum_on_device(true, x), expected) << "seed " << seed;
  }
}

TEST(Emulator, AMissingBarrierGivesOtherNumbersUnderSomeSeed) {
  const std::vector<float> x = whole_numbers(10'000);
  const float expected = std::accumulate(x.begin(), x.end(), 0.0f);
  int wrong = 0;
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    wrong += sum_on_device(false, x) != expected;
  }
  EXPECT_GE(wrong, 4) << "of 8 seeds";
}

// A warp a token: the k largest of E, ties to the lower id.
template <int kExperts, int kBest>
void warp_topk(const float* logits, int* ids, int tokens) {
  const int lane = int(threadIdx.x), token = int(blockIdx.x * blockDim.y + threadIdx.y);
  if (token >= tokens) return;
  float own[kExperts / 32];
  for (int j = 0; j < kExperts / 32; ++j) own[j] = logits[token * kExperts + j * 32 + lane];
  for (int k = 0; k < kBest; ++k) {
    float best = -INFINITY;
    int id = kExperts;
    for (int j = 0; j < kExperts / 32; ++j)
      if (own[j] > best) best = own[j], id = j * 32 + lane;
    for (int with = 16; with > 0; with /= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, best, with);
      const int other_id = __shfl_xor_sync(0xFFFFFFFFu, id, with);
      if (other > best || (other == best && other_id < id)) best = other, id = other_id;
    }
    if (lane == 0) ids[token * kBest + k] = id;
    if (id % 32 == lane) own[id / 32] = -INFINITY;
  }
}

TEST(Emulator, FindsTheLargestOfAWarpUnderEverySeed) {
  constexpr int kExperts = 128, kBest = 8, kTokens = 103;
  std::mt19937 random(5);
  std::vector<float> logits(kTokens * kExperts);
  for (float& value : logits) value = float(int(random() % 60));  // many ties
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    std::vector<int> ids(kTokens * kBest, -1);
    launch(dim3((kTokens + 3) / 4), dim3(32, 4), 0, warp_topk<kExperts, kBest>, logits.data(), ids.data(), kTokens);
    for (int t = 0; t < kTokens; ++t) {
      std::vector<int> sorted(kExperts);
      std::iota(sorted.begin(), sorted.end(), 0);
      std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) {
        return logits[size_t(t * kExperts + a)] > logits[size_t(t * kExperts + b)];
      });
      for (int k = 0; k < kBest; ++k)
        ASSERT_EQ(ids[size_t(t * kBest + k)], sorted[size_t(k)]) << "token " << t << " seed " << seed;
    }
  }
}

// One product of a warp: c += a b, every element loaded and stored by its own formula, as the PTX manual has them.
void one_mma(const uint16_t* a, const uint16_t* b, float* c) {
  const int group = int(threadIdx.x) >> 2, in_group = int(threadIdx.x) % 4;
  uint32_t words_a[4] = {}, words_b[2] = {};
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    words_a[i / 2] |= uint32_t(a[row * 16 + column]) << 16 * (i & 1);
  }
  for (int i = 0; i < 4; ++i)
    words_b[i / 2] |= uint32_t(b[(in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)) * 8 + group]) << 16 * (i & 1);
  float sums[4];
  const auto at = [&](int i) { return c + (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1); };
  for (int i = 0; i < 4; ++i) sums[i] = *at(i);
  cuda_on_cpu::mma_m16n8k16_bf16(words_a, words_b, sums);
  for (int i = 0; i < 4; ++i) *at(i) = sums[i];
}

uint16_t bf16(float value) {
  return uint16_t(std::bit_cast<uint32_t>(value) >> 16);
}

TEST(Emulator, MultipliesMatricesOnTheTensorCoreUnderEverySeed) {
  std::mt19937 random(6);
  std::vector<uint16_t> a, b;
  std::vector<float> x, y, before;
  for (int i = 0; i < 16 * 16; ++i) x.push_back(float(int(random() % 33) - 16)), a.push_back(bf16(x.back()));
  for (int i = 0; i < 16 * 8; ++i) y.push_back(float(int(random() % 33) - 16)), b.push_back(bf16(y.back()));
  for (int i = 0; i < 16 * 8; ++i) before.push_back(float(random() % 100));
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    std::vector<float> c = before;
    launch(dim3(1), dim3(32), 0, one_mma, a.data(), b.data(), c.data());
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column) {
        float sum = before[size_t(row * 8 + column)];
        for (int k = 0; k < 16; ++k) sum += x[size_t(row * 16 + k)] * y[size_t(k * 8 + column)];
        ASSERT_EQ(c[size_t(row * 8 + column)], sum) << row << ", " << column;  // whole numbers: exact
      }
  }
}

// Where fp32 rounds up, the unit cuts off: 2^24 + 16 * 3/4 is 2^24 + 12 in fp32, here nothing of 3/4 is kept.
TEST(Emulator, TheTensorCoreCutsSumsOff) {
  std::vector<uint16_t> a(16 * 16, bf16(0.75f)), b(16 * 8, bf16(1));
  std::vector<float> c(16 * 8, 0x1p24f);
  launch(dim3(1), dim3(32), 0, one_mma, a.data(), b.data(), c.data());
  for (const float sum : c) EXPECT_EQ(sum, 0x1p24f);
  c.assign(16 * 8, -INFINITY);
  launch(dim3(1), dim3(32), 0, one_mma, a.data(), b.data(), c.data());
  for (const float sum : c) EXPECT_EQ(sum, -INFINITY);
}

// Each lane of a group of `width` writes what shuffles and votes gave it.
void exchanges(int* out, int width) {
  const int lane = int(threadIdx.x);
  int* row = out + lane * 8;
  row[0] = __shfl_sync(0xFFFFFFFFu, lane, 5, width);
  row[1] = __shfl_xor_sync(0xFFFFFFFFu, lane, 3, width);
  row[2] = __shfl_up_sync(0xFFFFFFFFu, lane, 2u, width);
  row[3] = __shfl_down_sync(0xFFFFFFFFu, lane, 2u, width);
  row[4] = int(__ballot_sync(0xFFFFFFFFu, lane % 3 == 0));
  row[5] = __any_sync(0xFFFFFFFFu, lane == 31) + 2 * __all_sync(0xFFFFFFFFu, lane < 31);
  // The halves of the warp apart, one of them once more often than the other.
  const unsigned half = lane < 16 ? 0x0000FFFFu : 0xFFFF0000u;
  if (lane < 16)
    row[7] = __shfl_sync(half, lane * 10, 3);
  else
    row[7] = __shfl_sync(half, __shfl_xor_sync(half, lane, 1), 20);
  row[6] = int(__popc(__activemask()));
  __syncwarp();  // nobody exits before all have asked
}

TEST(Emulator, ShufflesAndVotesFollowTheirWidthAndMask) {
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    for (const int width : {32, 8}) {
      std::vector<int> out(32 * 8);
      launch(dim3(1), dim3(32), 0, exchanges, out.data(), width);
      for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / width * width;
        const int* row = out.data() + lane * 8;
        EXPECT_EQ(row[0], group + 5 % width);
        EXPECT_EQ(row[1], lane ^ 3);
        EXPECT_EQ(row[2], lane - 2 >= group ? lane - 2 : lane);
        EXPECT_EQ(row[3], lane + 2 < group + width ? lane + 2 : lane);
        EXPECT_EQ(row[4], 0x49249249);
        EXPECT_EQ(row[5], 1);
        EXPECT_EQ(row[6], 32);
        EXPECT_EQ(row[7], lane < 16 ? 30 : 21);
      }
    }
  }
}

void last_block(unsigned* arrived, int* values, int* sum) {
  STATIC_SHARED(unsigned, ticket, 1);
  if (threadIdx.x == 0) values[blockIdx.x] = int(blockIdx.x * blockIdx.x), ticket[0] = atomicAdd(arrived, 1u);
  __syncthreads();
  if (ticket[0] != gridDim.x - 1) return;
  if (threadIdx.x == 0)
    for (unsigned i = 0; i < gridDim.x; ++i) *sum += values[i];
}

TEST(Emulator, TheLastBlockOfAGridSeesAllOthers) {
  for (const uint64_t seed : kSeeds) {
    const WithSeed with(seed);
    unsigned arrived = 0;
    std::vector<int> values(20, -1);
    int sum = 0;
    launch(dim3(20), dim3(64), 0, last_block, &arrived, values.data(), &sum);
    EXPECT_EQ(sum, 2470);  // 0^2 + ... + 19^2
  }
}

void counts(int* out) {
  const int odd = int(threadIdx.x & 1);
  const int count = __syncthreads_count(odd), any = __syncthreads_or(threadIdx.x == 40), all = __syncthreads_and(odd);
  if (threadIdx.x == 0) out[0] = count, out[1] = any != 0, out[2] = all != 0;
}

TEST(Emulator, BarriersCount) {
  int out[3] = {};
  launch(dim3(1), dim3(70), 0, counts, static_cast<int*>(out));
  EXPECT_EQ(out[0], 35);
  EXPECT_EQ(out[1], 1);
  EXPECT_EQ(out[2], 0);
}

void reads_what_nobody_wrote(unsigned char* out) {
  STATIC_SHARED(unsigned char, a, 4);
  DYNAMIC_SHARED(unsigned char, b);
  out[0] = a[2], out[1] = b[15];
  __syncthreads();
  a[2] = b[15] = 1;  // the next block is to find it poisoned again
}

TEST(Emulator, SharedMemoryStartsPoisonedInEveryBlock) {
  unsigned char out[2] = {};
  launch(dim3(3), dim3(1), 16, reads_what_nobody_wrote, static_cast<unsigned char*>(out));
  EXPECT_EQ(out[0], 0xCD);
  EXPECT_EQ(out[1], 0xCD);
}

void writes_past_the_end(int at) {
  STATIC_SHARED(float, a, 33);
  a[at] = 1;
}
void waits_alone(int* out) {
  if (threadIdx.x == 3)
    out[0] = __shfl_sync(0xFFFFFFFFu, 1, 0);
  else
    __syncthreads();
}
void waits_elsewhere(int* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[0] = 1;
}
void names_the_gone(int* out) {
  if (threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);
}

TEST(EmulatorDeathTest, ReportsWhatADeviceLeavesUndefined) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  int out[64] = {};
  int* const at = out;
  launch(dim3(1), dim3(1), 0, writes_past_the_end, 32);
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(launch(dim3(1), dim3(1), 0, writes_past_the_end, 33), "use-after-poison|buffer-overflow");
#else
  EXPECT_DEATH(launch(dim3(1), dim3(1), 0, writes_past_the_end, 33), "a write outside of shared memory");
#endif
  EXPECT_DEATH(launch(dim3(1), dim3(32), 0, waits_alone, at), "deadlock in block .0, 0, 0.");
  EXPECT_DEATH(launch(dim3(1), dim3(64), 0, waits_elsewhere, at), "wait at different barriers");
  EXPECT_DEATH(launch(dim3(1), dim3(32), 0, names_the_gone, at), "a lane that has exited");
}

}  // namespace

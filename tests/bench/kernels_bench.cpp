// Micro benchmarks of the cpu kernels and of the thread pool, at every instruction set of the machine.
// Not a test: run it by hand, on a quiet machine. Bytes are stored weights read, flops 2 per product.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cpu/aligned.h"
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/base/thread_pool.h"

namespace switchyard::cpu {
namespace {

std::vector<float> random_floats(size_t n) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> out(n);
  for (float& x : out) x = uniform(random);
  return out;
}

// bf16 weights [rows, cols] times `count` tokens on one thread.
void dot_rows(benchmark::State& state, const Kernels& k, int64_t rows, int64_t cols, int count) {
  std::vector<uint16_t> weights(size_t(rows) * cols);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = uint16_t(0x3c00 + i * 2654435761u % 0x300);
  const Matrix w{reinterpret_cast<const unsigned char*>(weights.data()), Stored::kBF16, rows, cols};
  const std::vector<float> in = random_floats(size_t(count) * cols);
  std::vector<float> out(size_t(count) * rows);
  std::vector<const float*> x;
  std::vector<float*> y;
  for (int t = 0; t < count; ++t) {
    x.push_back(in.data() + size_t(t) * cols);
    y.push_back(out.data() + size_t(t) * rows);
  }
  AlignedFloats packed(size_t(k.packed_floats(Stored::kBF16, count, cols)));
  for (auto _ : state) {
    TokenRows tokens{count, x.data(), y.data(), nullptr};
    if (packed.size() > 0) {
      k.pack(x.data(), count, cols, packed.data());
      tokens.packed = packed.data();
    }
    k.dot_rows(w, 0, rows, tokens);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(int64_t(state.iterations()) * rows * cols * 2);
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * double(rows) * double(cols) * count * double(state.iterations()), benchmark::Counter::kIsRate);
}

// Blocks of any bytes times `count` tokens; scales apart are ones.
void dot_blocks(benchmark::State& state, const Kernels& k, Stored type, int64_t rows, int64_t cols, int count) {
  Matrix w{nullptr, type, rows, cols};
  std::vector<unsigned char> bytes(size_t(rows * row_bytes(w)));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 2654435761u >> 11 & 0x37);
  if (type == Stored::kMxfp4)
    for (size_t i = 0; i < bytes.size(); i += 17) bytes[i] = 127;
  const std::vector<float> ones(size_t(cols), 1.0f), in = random_floats(size_t(count) * cols);
  const std::vector<unsigned char> exponents(size_t(cols), 127);
  w.data = bytes.data();
  w.scale_rows = rows;
  w.scale_shift = 7;
  w.scales = type == Stored::kFp8 ? reinterpret_cast<const unsigned char*>(ones.data()) : exponents.data();
  std::vector<float> out(size_t(count) * rows);
  std::vector<const float*> x;
  std::vector<float*> y;
  for (int t = 0; t < count; ++t) x.push_back(in.data() + size_t(t) * cols), y.push_back(out.data() + size_t(t) * rows);
  for (auto _ : state) {
    k.dot_rows(w, 0, rows, {count, x.data(), y.data(), nullptr});
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(bytes.size()));
  state.counters["weights"] = benchmark::Counter(double(rows) * double(cols) * double(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * double(rows) * double(cols) * count * double(state.iterations()), benchmark::Counter::kIsRate);
}

// One query group of 4 heads over `blocks` blocks of keys.
void attend(benchmark::State& state, const Kernels& k, int head_dim, int blocks) {
  const std::vector<float> q = random_floats(size_t(4) * head_dim),
                           keys = random_floats(size_t(blocks) * kKeyBlock * head_dim),
                           values = random_floats(size_t(blocks) * kKeyBlock * head_dim);
  std::vector<float> sums(4 * head_dim), scores(kMaxQueries * kKeyBlock);
  const float* heads[4] = {q.data(), q.data() + head_dim, q.data() + 2 * head_dim, q.data() + 3 * head_dim};
  const int first[4] = {0, 0, 0, 0}, last[4] = {kKeyBlock, kKeyBlock, kKeyBlock, kKeyBlock};
  for (auto _ : state) {
    float largest[4] = {-1e30f, -1e30f, -1e30f, -1e30f}, sum[4] = {0, 0, 0, 0};
    for (int b = 0; b < blocks; ++b)
      k.attend({4, heads, first, last, 0.1f}, keys.data() + size_t(b) * kKeyBlock * head_dim,
               values.data() + size_t(b) * kKeyBlock * head_dim, head_dim, {largest, sum, sums.data()}, scores.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(int64_t(state.iterations()) * blocks * kKeyBlock);
}

void glu(benchmark::State& state, const Kernels& k) {
  const std::vector<float> gate = random_floats(1024), up = random_floats(1024);
  std::vector<float> out(1024);
  for (auto _ : state) {
    k.glu(Unit::kSilu, gate.data(), up.data(), 1, out.data(), 1024);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(int64_t(state.iterations()) * 1024);
}

// The price of one barrier: two parts of nothing.
void pool_barrier(benchmark::State& state) {
  ThreadPool pool(2);
  for (auto _ : state) pool.run(2, [](int, int) {});
}

void register_all() {
  for (const Isa isa : host_isas()) {
    const Kernels& k = kernels(isa);
    const std::string prefix(token(isa));
    const auto add = [&](const std::string& label, auto function, auto... args) {
      benchmark::RegisterBenchmark((prefix + "/" + label).c_str(), function, k, args...);
    };
    add("dot_rows/cached_384x256/tokens_1", dot_rows, 384, 256, 1);
    add("dot_rows/memory_32768x2048/tokens_1", dot_rows, 32768, 2048, 1);
    for (const int count : {2, 3, 4, 6, 8, 16, 64, 256})
      add("dot_rows/1024x2048/tokens_" + std::to_string(count), dot_rows, 1024, 2048, count);
    for (const auto& [type, label] : {std::pair{Stored::kQ8_0, "Q8_0"}, {Stored::kQ4_K, "Q4_K"}, {Stored::kMxfp4, "MXFP4"},
                                      {Stored::kMxfp4Apart, "MXFP4_apart"}, {Stored::kFp8, "FP8"}})
      for (const int count : {1, 64})
        add(std::string("dot_blocks/") + label + "/32768x2048/tokens_" + std::to_string(count), dot_blocks, type, count == 1 ? 32768 : 1024, 2048, count);
    for (const int count : {16, 64, 256})
      add("dot_rows/64x256/tokens_" + std::to_string(count), dot_rows, 64, 256, count);
    add("attend/head_32/keys_256", attend, 32, 4);
    add("attend/head_128/keys_2048", attend, 128, 32);
    add("glu", glu);
  }
  benchmark::RegisterBenchmark("pool_barrier", pool_barrier);
}

}  // namespace
}  // namespace switchyard::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  switchyard::cpu::register_all();
  benchmark::RunSpecifiedBenchmarks();
}

// Decode and prefill of the cpu backend on a random model that no cache holds (560 MB of bf16, 155 MB
// read for a token), beside plain reading of as much memory. Not a test: run it by hand on a quiet machine.
#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/thread_pool.h"
#include "engine/runtime/bench.h"

namespace switchyard {
namespace {

// Every tensor is a different part of one random buffer.
class RandomWeights final : public WeightStore {
 public:
  RandomWeights() : words_(kElements) {
    std::mt19937_64 random(3);
    for (uint16_t& word : words_)
      word = uint16_t(0x3c00 + random() % 0x200 + (random() & 0x8000));  // about +-0.01 to 0.03
  }
  TensorRef add(int64_t rows, int64_t cols) {
    if (used_ + rows * cols > int64_t(kElements)) throw std::runtime_error("the random buffer is too small");
    const TensorRef ref{.name = "random", .rows = rows, .cols = cols, .element_offset = used_, .dtype = DType::kBF16};
    used_ += rows * cols;
    return ref;
  }
  Result<TensorView> view(const TensorRef& ref) const override {
    return TensorView{reinterpret_cast<const std::byte*>(words_.data() + ref.element_offset), ref.dtype, ref.rows,
                      ref.cols};
  }
  Result<void> check_unchanged() const override { return {}; }
  uint64_t bytes() const override { return uint64_t(used_) * 2; }

 private:
  static constexpr size_t kElements = size_t(300) << 20;
  std::vector<uint16_t> words_;
  int64_t used_ = 0;
};

// The shape of published fine-grained models, made smaller: hidden 1024, 4 layers, 8 of 40 experts.
struct Model {
  Model() {
    constexpr int kHidden = 1024, kHeads = 16, kHeadDim = 64, kExperts = 40, kWidth = 512, kLayers = 4;
    plan.dtype = DType::kBF16;
    plan.hidden = kHidden;
    plan.vocab = 16384;
    plan.context = 4096;
    plan.embedding = weights->add(plan.vocab, kHidden);
    plan.lm_head = plan.embedding;
    plan.tied = true;
    const auto norm = [&] { return NormSpec{NormKind::kRmsOnePlus, weights->add(1, kHidden), {}, 1e-6f}; };
    plan.final_norm = norm();
    for (int i = 0; i < kLayers; ++i) {
      LayerPlan layer;
      AttentionSpec a;
      a.heads = kHeads;
      a.kv_heads = kHeads / 4;
      a.head_dim = kHeadDim;
      a.scale = 0.125f;
      a.q = weights->add(kHeads * kHeadDim, kHidden);
      a.k = weights->add(kHeads / 4 * kHeadDim, kHidden);
      a.v = weights->add(kHeads / 4 * kHeadDim, kHidden);
      a.o = weights->add(kHidden, kHeads * kHeadDim);
      a.rope = {RopeKind::kHalf, kHeadDim, std::vector<float>(kHeadDim / 2, 0.01f), 1.0f};
      MoeSpec moe{{.router = {.experts = kExperts, .experts_per_token = 8, .renorm = Renorm::kSum}}, {.width = kWidth}};
      moe.router_weight = weights->add(kExperts, kHidden);
      for (int e = 0; e < kExperts; ++e)
        moe.experts.push_back(
            {weights->add(kWidth, kHidden), weights->add(kWidth, kHidden), weights->add(kHidden, kWidth)});
      layer.sublayers.push_back({.norm = norm(), .op = std::move(a)});
      layer.sublayers.push_back({.norm = norm(), .op = std::move(moe)});
      plan.layers.push_back(std::move(layer));
    }
    number_rows(plan);
  }
  std::shared_ptr<RandomWeights> weights = std::make_shared<RandomWeights>();
  ModelPlan plan;
};

Model& model() {
  static Model model;
  return model;
}

std::vector<TokenId> tokens(int count) {
  std::vector<TokenId> ids;
  for (int i = 0; i < count; ++i) ids.push_back(TokenId(uint64_t(i) * 7919 % uint64_t(model().plan.vocab)));
  return ids;
}

void feed(Backend& backend, KvCache& cache, std::span<const TokenId> ids, std::span<float> logits) {
  static const Recipe native;
  const auto done = backend.forward({.tokens = ids, .cache = &cache, .recipe = &native, .logits = logits});
  if (!done) throw std::runtime_error(done.error().message());
}

void decode(benchmark::State& state) {
  const auto backend =
      make_cpu_backend(model().plan, model().weights, {.threads = int(state.range(0))}, nullptr).value();
  const int context = int(state.range(1));
  const auto cache = backend->new_cache(4096);
  std::vector<float> logits(model().plan.vocab);
  feed(*backend, *cache, tokens(context), logits);
  const std::vector<TokenId> next = tokens(997);
  size_t i = 0;
  for (auto _ : state) {
    feed(*backend, *cache, std::span(next).subspan(i++ % next.size(), 1), logits);
    cache->truncate(context);
  }
  state.SetItemsProcessed(int64_t(state.iterations()));
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(weight_bytes_per_token(model().plan)));
}

void prefill(benchmark::State& state) {
  const auto backend =
      make_cpu_backend(model().plan, model().weights, {.threads = int(state.range(0))}, nullptr).value();
  const std::vector<TokenId> prompt = tokens(int(state.range(1)));
  std::vector<float> logits(model().plan.vocab);
  for (auto _ : state) {
    const auto cache = backend->new_cache(4096);
    feed(*backend, *cache, prompt, logits);
  }
  state.SetItemsProcessed(int64_t(state.iterations()) * int64_t(prompt.size()));
}

void reading(benchmark::State& state) {
  double best = 0;
  for (auto _ : state) best = std::max(best, read_ceiling(uint64_t(512) << 20, int(state.range(0))).gb_per_s);
  state.counters["GB/s"] = best;
}

void register_all() {
  const int cores = available_cores();
  for (const int threads : {1, cores}) {
    benchmark::RegisterBenchmark("reading/threads", reading)
        ->Args({threads})
        ->Iterations(3)
        ->Unit(benchmark::kMillisecond);
    for (const int context : {64, 2048})
      benchmark::RegisterBenchmark("decode/threads/context", decode)
          ->Args({threads, context})
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    for (const int length : {128, 512, 2048})
      benchmark::RegisterBenchmark("prefill/threads/tokens", prefill)
          ->Args({threads, length})
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  switchyard::register_all();
  benchmark::RunSpecifiedBenchmarks();
}

// The token path of the cpu backend takes no memory: once a cache has its block and the workspace its size,
// forward() of one token calls operator new not once. Own program, because it replaces operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/backend/backend.h"
#include "engine/routing/decision.h"

namespace {
std::atomic<int> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = alignment > alignof(std::max_align_t)
                ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                : std::malloc(size > 0 ? size : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(std::size_t size) {
  return counted(size, 0);
}
void* operator new[](std::size_t size) {
  return counted(size, 0);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, std::size_t(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, std::size_t(alignment));
}
// std::stable_sort asks for its buffer so: without these a sanitizer would give memory that is freed here.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return counted(size, 0);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return counted(size, 0);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}

namespace switchyard {
namespace {

class CpuAllocation : public testing::TestWithParam<std::string> {};

// The demo, latent attention with shared experts and groups, layers with a shared expert behind a gate.
INSTANTIATE_TEST_SUITE_P(Models, CpuAllocation,
                         testing::Values("assets/models/demo", "tests/goldens/deepseek_v2_groups",
                                         "tests/goldens/qwen2_moe"),
                         [](const auto& info) { return info.param.substr(info.param.rfind('/') + 1); });

TEST_P(CpuAllocation, ATokenTakesNoMemory) {
  const auto checkpoint = open_checkpoint(std::string(SWITCHYARD_SOURCE_DIR "/") + GetParam());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const ModelPlan& plan = checkpoint->plan;
  const auto weights = WeightStore::open(*checkpoint);
  ASSERT_TRUE(weights) << weights.error().message();
  const auto backend = make_cpu_backend(plan, *weights, {.threads = 2}, nullptr);
  ASSERT_TRUE(backend) << backend.error().message();

  const auto cache = (*backend)->new_cache(64);
  const Recipe native;
  std::vector<float> logits(size_t(plan.vocab));
  std::vector<RoutingFrame> frames(1, RoutingFrame(int(plan.moe_layers.size()), plan.max_experts(),
                                                   plan.max_experts_per_token(), CaptureLevel::kLogits));
  const TokenId token = 5;
  // Each worker grows its own buffers when it first takes a part: some tokens go before.
  const auto forward = [&] {
    return (*backend)->forward(
        {.tokens = {&token, 1}, .cache = cache.get(), .recipe = &native, .logits = logits, .frames = frames});
  };
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(forward());
  const int before = allocations.load();
  bool done = true;
  for (int i = 0; i < 40; ++i) done = bool(forward()) && done;
  EXPECT_EQ(allocations.load() - before, 0);
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace switchyard

// When memory runs out inside forward(): an error, not an end of the program, and the cache as before.
// In child processes (gtest's threadsafe death tests) whose address space is limited after loading.
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <new>

#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

// Limits the address space to what the process has and takes what malloc still holds, in pieces that
// leave room for small things only.
std::vector<std::unique_ptr<char[]>> take_all_memory() {
  std::vector<std::unique_ptr<char[]>> taken;
  taken.reserve(1 << 17);
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlimit limit{pages * 4096, pages * 4096};
  setrlimit(RLIMIT_AS, &limit);
  while (auto* piece = new (std::nothrow) char[64 << 10]) taken.emplace_back(piece);
  return taken;
}

// 0: ran out, said so, kept its 8 tokens and went on with one more; else what went wrong.
int run_out(const std::string& backend_name) {
  Backend& on = backend("demo", backend_name);
  on.set_threads(1);
  const auto cache = on.new_cache(8192);
  const Recipe native;
  const std::vector<TokenId> few(8, 42), many(4000, 42);
  if (!on.forward({.tokens = few, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone})) return 2;
  auto taken = take_all_memory();
  const auto done = on.forward({.tokens = many, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone});
  taken.clear();
  if (done) return 3;
  std::cerr << done.error().message() << "\n";
  if (done.error().code != ErrorCode::kMemory) return 4;
  if (cache->length() != 8) return 5;
  return on.forward(
             {.tokens = std::span(few).first(1), .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone})
             ? 0
             : 6;
}

class Memory : public ::testing::TestWithParam<std::string> {};

TEST_P(Memory, RunningOutIsAnErrorAndTheCacheGoesOn) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs all of the address space";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(run_out(GetParam())), ::testing::ExitedWithCode(0), "memory");
}

INSTANTIATE_TEST_SUITE_P(Backends, Memory, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing

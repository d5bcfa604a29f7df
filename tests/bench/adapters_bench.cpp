// What adapters cost: decode tokens per second of the cpu backend with 0, 1 and 4 adapters of rank 8 on every q_proj,
// taken in turn; 1 with fixed weights, 4 routed by arrow (k 2). Not a test: run it by hand on a quiet machine.
// Arguments: model (demo), turns (7), new tokens (600), threads (0).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/model/checkpoint.h"
#include "engine/model/linears.h"
#include "engine/routing/edit.h"
#include "tests/bench/token_speed.h"
#include "tests/support/tiny_checkpoint.h"

using namespace switchyard;

namespace {

constexpr int kRank = 8;

// Random adapters on every q_proj.
std::shared_ptr<const AdapterSet> adapters(const ModelPlan& plan, int count, const char* router,
                                           const std::filesystem::path& folder) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<NamedTensor> tensors;
  for (const Linear& linear : linears_of(plan)) {
    if (!names_module("q_proj", linear.module)) continue;
    for (int e = 0; e < count; ++e)
      for (const bool a : {true, false}) {
        const int64_t rows = a ? kRank : linear.rows, cols = a ? linear.cols : kRank;
        std::vector<float> values(size_t(rows * cols));
        for (float& value : values) value = normal(random) * 0.02f;
        tensors.push_back(
            {"lora." + linear.module + "." + std::to_string(e) + (a ? ".A" : ".B"), {rows, cols}, std::move(values)});
      }
  }
  put_file(folder / "adapters.safetensors", safetensors_of(tensors));
  auto set = make_adapters({{(folder / "adapters.safetensors").string()}, router, {}}, {}, {}, plan);
  if (!set) std::printf("%s\n", set.error().message().c_str()), std::exit(1);
  return *set;
}

// `tokens` forward passes of one token each behind a prompt of 64.
Speed speed_of(Backend& backend, const ModelPlan& plan, int tokens, const std::shared_ptr<const AdapterSet>& set) {
  Recipe recipe;
  apply(SetAdapters{{}, {}, {set}}, plan, recipe);
  const auto cache = backend.new_cache(64 + tokens);
  std::vector<TokenId> prompt;
  for (int i = 0; i < 64; ++i) prompt.push_back((100 + 31 * i) % plan.vocab);
  std::vector<float> logits(static_cast<size_t>(plan.vocab));
  const auto pass = [&](std::span<const TokenId> ids) {
    const auto done =
        backend.forward({.tokens = ids, .cache = cache.get(), .recipe = &recipe, .prompt = 64, .logits = logits});
    if (!done) std::printf("%s\n", done.error().message().c_str()), std::exit(1);
  };
  pass(prompt);
  const double before = cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < tokens; ++i) {
    const auto next = TokenId(std::max_element(logits.begin(), logits.end()) - logits.begin());
    pass({&next, 1});
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {tokens / seconds, (cpu_seconds() - before) * 1e6 / tokens};
}

}  // namespace

int main(int argc, char** argv) {
  const int turns = argc > 2 ? std::atoi(argv[2]) : 7;
  const int tokens = argc > 3 ? std::atoi(argv[3]) : 600;
  const auto checkpoint = open_checkpoint(argc > 1 ? argv[1] : "demo");
  if (!checkpoint) return std::printf("%s\n", checkpoint.error().message().c_str()), 1;
  const TemporaryFolder folder;
  const std::shared_ptr<const AdapterSet> sets[3] = {nullptr, adapters(checkpoint->plan, 1, "fixed", folder.path()),
                                                     adapters(checkpoint->plan, 4, "arrow", folder.path())};
  const auto weights = WeightStore::open(*checkpoint);
  if (!weights) return std::printf("%s\n", weights.error().message().c_str()), 1;
  const auto backend = make_backend("cpu", *checkpoint, *weights, {.threads = argc > 4 ? std::atoi(argv[4]) : 0});
  if (!backend) return std::printf("%s\n", backend.error().message().c_str()), 1;
  speed_of(**backend, checkpoint->plan, tokens, sets[2]);  // warm
  std::vector<double> speed[3], cpu[3], ratio[3];
  for (int turn = 0; turn < turns; ++turn) {
    for (int which = 0; which < 3; ++which) {
      const Speed one = speed_of(**backend, checkpoint->plan, tokens, sets[which]);
      speed[which].push_back(one.tokens_per_s);
      cpu[which].push_back(one.cpu_us);
      ratio[which].push_back(one.tokens_per_s / speed[0].back());
    }
    std::printf(
        "%7.1f, %7.1f, %7.1f tokens/s with 0, 1, 4 adapters: ratios %.3f and %.3f; processor %.0f, %.0f, %.0f us a "
        "token\n",
        speed[0].back(), speed[1].back(), speed[2].back(), ratio[1].back(), ratio[2].back(), cpu[0].back(),
        cpu[1].back(), cpu[2].back());
  }
  std::printf("medians: %.1f, %.1f, %.1f tokens/s; ratios %.3f and %.3f; processor %.0f, %.0f, %.0f us a token\n",
              median(speed[0]), median(speed[1]), median(speed[2]), median(ratio[1]), median(ratio[2]), median(cpu[0]),
              median(cpu[1]), median(cpu[2]));
  return 0;
}

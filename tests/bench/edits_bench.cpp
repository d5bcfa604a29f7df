// What a storm of edits costs: decode speed of the demo on cpu, alternately undisturbed and under N random edits a
// second (half of them undone). edits_bench [EDITS_PER_SECOND 1000] [PAIRS 10] [TOKENS 1500] [THREADS 1]
// Prints every pair, then the median ratio with its quartiles. Run by hand on a quiet machine.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "engine/runtime/session.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

EditCommand random_edit(std::mt19937& random, const ModelPlan& plan) {
  const int row = int(random() % plan.moe_layers.size());
  const LayerSet where{{plan.moe_layers[row]}};
  const std::vector<ExpertId> expert{ExpertId(random() % unsigned(plan.routed(row).router.experts))};
  const float value = float(int(random() % 200) - 100) / 100;
  switch (random() % 5) {
    case 0: return {Bias{where, expert, value}, {}};
    case 1: return {SelectBias{where, expert, value / 10}, {}};
    case 2: return {Temperature{where, 1 + value / 4}, {}};
    case 3: return {ExpertScale{where, expert, 1 + value / 4}, {}};
    default: return {Mute{where, expert}, {}};
  }
}

struct Run {
  double tokens_per_s = 0;
  uint64_t edits = 0;
};

// A fresh session, so that no run carries the history of another.
Run decode(const Checkpoint& checkpoint, int tokens, int threads, int edits_per_s, unsigned seed) {
  SessionOptions options;
  options.backend = "cpu";
  options.threads = threads;
  options.ignore_eos = true;
  auto session = Session::open(checkpoint, options);
  if (!session) std::fprintf(stderr, "%s\n", session.error().message().c_str()), std::exit(1);
  std::atomic<bool> done{false};
  uint64_t sent = 0;
  std::thread storm([&] {
    std::mt19937 random(seed);
    const auto start = Clock::now();
    while (edits_per_s > 0 && !done) {
      std::this_thread::sleep_until(start + std::chrono::microseconds(1000000 * (sent + 1) / uint64_t(edits_per_s)));
      if (sent % 2) (*session)->undo();
      else (void)(*session)->send(random_edit(random, checkpoint.plan));
      ++sent;
    }
  });
  (*session)->send(Start{{1, 2, 3, 4}, uint64_t(tokens)});
  const auto end = (*session)->wait();
  done = true;
  storm.join();
  return {end->mean_decode_tokens_per_s, sent};
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  const auto argument = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  const int rate = argument(1, 1000), pairs = argument(2, 10), tokens = argument(3, 1500), threads = argument(4, 1);
  const auto checkpoint = open_checkpoint("demo");
  if (!checkpoint) std::fprintf(stderr, "%s\n", checkpoint.error().message().c_str()), std::exit(1);
  std::vector<double> ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    const Run quiet = decode(*checkpoint, tokens, threads, 0, 0), edited = decode(*checkpoint, tokens, threads, rate, unsigned(pair));
    ratios.push_back(edited.tokens_per_s / quiet.tokens_per_s);
    std::printf("pair %d: %.0f tok/s, with %llu edits %.0f tok/s, ratio %.4f\n", pair, quiet.tokens_per_s,
                static_cast<unsigned long long>(edited.edits), edited.tokens_per_s, ratios.back());
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("ratio: median %.4f, quartiles %.4f to %.4f\n", ratios[ratios.size() / 2], ratios[ratios.size() / 4], ratios[ratios.size() * 3 / 4]);
}

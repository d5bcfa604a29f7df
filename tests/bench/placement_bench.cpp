// What the placements and simulations take, in CPU seconds: prints one line each.
//   placement_bench [decisions of the cache trace, in millions (10)]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "engine/base/philox.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/cache_simulation.h"
#include "engine/placement/plec_simulation.h"

namespace {

using namespace switchyard;

// CPU seconds of all threads: comparable on a busy machine.
double seconds_of(const auto& work) {
  const std::clock_t start = std::clock();
  work();
  return double(std::clock() - start) / CLOCKS_PER_SEC;
}

struct Words {
  uint32_t at = 0;
  uint32_t next() { return philox4x32({at++, 0, 0, 0}, {7, 0})[0]; }
};

// Experts are skewed and repeat: half of the choices of a token are those of the token before.
std::vector<ExpertId> invented_ids(int rows, int tokens, int experts, int k) {
  Words words;
  std::vector<ExpertId> ids;
  for (int row = 0; row < rows; ++row) {
    for (int t = 0; t < tokens; ++t) {
      const size_t first = ids.size();
      for (int slot = 0; slot < k; ++slot) {
        if (t > 0 && words.next() % 2 == 0) {
          ids.push_back(ids[ids.size() - size_t(k)]);
        } else {
          const double u = unit_interval(words.next());
          ids.push_back(ExpertId(u * u * experts));
        }
        for (bool again = true; again;) {
          again = false;
          for (size_t i = first; i + 1 < ids.size(); ++i) again = again || ids[i] == ids.back();
          if (again) ids.back() = ExpertId((ids.back() + 1) % experts);
        }
      }
    }
  }
  return ids;
}

void caches(double millions) {
  constexpr int kRows = 16, kExperts = 64, kK = 8, kSequence = 512;
  const int tokens = int(millions * 1e6 / (kRows * kK));
  const auto ids = invented_ids(kRows, tokens, kExperts, kK);
  std::vector<uint32_t> sequence, position;
  for (int t = 0; t < tokens; ++t) {
    sequence.push_back(uint32_t(t / kSequence));
    position.push_back(uint32_t(t % kSequence));
  }
  RoutingSlab slab;
  slab.tokens = tokens;
  slab.rows = kRows;
  slab.experts = kExperts;
  slab.k = kK;
  slab.ids = ids;
  slab.sequence = sequence;
  slab.position = position;
  for (const char* policy : {"lru", "lfu", "sch-16", "belady"}) {
    CacheOptions options;
    options.policies = {parse_cache_policy(policy).value()};
    CacheSimulation simulation(kRows, kExperts, options);
    const double s = seconds_of([&] {
      (void)simulation.feed(slab);
      simulation.finish();
    });
    uint64_t hits = 0;
    for (int cache = 0; cache < kRows; ++cache) hits += simulation.hits(0, cache, 16, false);
    std::printf(
        "cache %-7s all sizes, %d layers x %d experts, k %d: %6.2f s for %.0fM decisions, %6.1f s for 1e8 (hit rate at "
        "16: %.3f)\n",
        policy, kRows, kExperts, kK, s, millions, s * 100 / millions, double(hits) / (double(tokens) * kRows * kK));
  }
  const std::vector<uint64_t> pairs(size_t(kRows - 1) * kExperts * kExperts, 1);
  PlecSimulation plec(kRows, kExperts, 16 * kRows, 1, pairs);
  const double s = seconds_of([&] {
    (void)plec.feed(slab);
    plec.finish();
  });
  std::printf("cache plec    one size: %6.2f s for %.0fM decisions, %6.1f s for 1e8\n", s, millions,
              s * 100 / millions);
}

void placement(const char* label, int layers, int experts, PlacementOptions options) {
  Words words;
  HopCounts hops{layers, experts};
  for (int l = 0; l + 1 < layers; ++l)
    for (int i = 0; i < experts * experts; ++i)
      hops.transitions.push_back(uint64_t(1000 * std::pow(unit_interval(words.next()), 8)));
  uint64_t total = 0;
  for (const uint64_t n : hops.transitions) total += n;
  Placement found;
  const double s = seconds_of([&] { found = place_by_affinity(hops, options).value(); });
  std::printf("%s, L=%d E=%d G=%d: %7.2f s, %s, cut %.4f of all (random %.4f)\n", label, layers, experts, options.gpus,
              s, name(found.proof).data(), double(found.cut) / double(total), 1 - 1.0 / options.gpus);
}

}  // namespace

int main(int argc, char** argv) {
  const double millions = argc > 1 ? std::atof(argv[1]) : 10;
  placement("chain", 4, 16, {.gpus = 2});
  placement("chain", 32, 8, {.gpus = 4});
  placement("annealing", 32, 8, {.gpus = 4, .exact_limit = 0});
  placement("assignment", 58, 64, {.gpus = 64});
  placement("annealing", 48, 128, {.gpus = 8});
  caches(millions);
}

// switchyard simulate cache: an expert cache replayed (specs/analyses.md A8, A9).
#include <algorithm>

#include <fmt/format.h>

#include "app/cli/simulation.h"
#include "engine/placement/cache_simulation.h"
#include "engine/placement/hop_counter.h"
#include "engine/placement/plec_simulation.h"

namespace switchyard {
namespace {

struct CacheChoice {
  std::string policies = "lru,lfu,sch-16,belady,static", slots, scope = "layer", rule = "set", start = "cold", train;
  int step_tokens = 1;
  double expert_mb = 0, bandwidth_gb = 0, layer_us = 0;
  int threads = 0;
};

Result<std::vector<uint64_t>> train_plec(Simulation& simulation, const CacheChoice& choice) {
  const TraceShape& shape = simulation.shape();
  HopCounter counter(shape.rows, shape.experts, 1);
  const auto take = [&](const RoutingSlab& slab) { return counter.feed(slab); };
  if (choice.train.empty()) {
    simulation.cli().output.warn(
        "plec forecasts from transitions of this very trace; --train OTHER.moetrace.h5 shows what it can do on new "
        "text.");
    SY_CHECK(simulation.run({}, take, 0, 0.5));
    return counter.all_pairs();
  }
  SY_TRY(TraceInput other, open_trace(simulation.cli(), choice.train, &simulation.task));
  if (other.walk.shape().rows != shape.rows || other.walk.shape().experts != shape.experts)
    return fail(ErrorCode::kUsage,
                fmt::format("has {} layers of {} experts, the simulated trace {} of {}.", other.walk.shape().rows,
                            other.walk.shape().experts, shape.rows, shape.experts),
                choice.train);
  SY_CHECK(other.walk.run(take, &simulation.task, 0, 0.5));
  return counter.all_pairs();
}

Result<std::vector<int>> cache_sizes(const CacheChoice& choice, int most) {
  if (choice.slots == "all") {
    std::vector<int> all;
    for (int slots = 1; slots <= most; ++slots) all.push_back(slots);
    return all;
  }
  if (!choice.slots.empty()) return numbers<int>(choice.slots, "--slots", 1, most);
  std::vector<int> sizes;  // an eighth, a quarter, half, three quarters and all
  for (const int eighths : {1, 2, 4, 6, 8})
    if (const int slots = std::max(1, most * eighths / 8); sizes.empty() || sizes.back() != slots)
      sizes.push_back(slots);
  return sizes;
}

Result<int> simulate_cache(Cli& cli, const SimulatedTrace& trace, const CacheChoice& choice) {
  CacheOptions settings;
  settings.rule = choice.rule == "set" ? CacheRule::kSet : CacheRule::kMoeLrc;
  settings.shared = choice.scope == "model";
  settings.step_tokens = choice.step_tokens;
  settings.threads = choice.threads;
  settings.policies.clear();
  bool plec = false;
  for (const std::string& word : words(choice.policies)) {
    if (word == "plec") {
      plec = true;
      continue;
    }
    SY_TRY(const CachePolicySpec policy, parse_cache_policy(word));
    settings.policies.push_back(policy);
  }
  Simulation simulation(cli, trace, "cache");
  SY_CHECK(simulation.open());
  const TraceShape& shape = simulation.shape();
  if (!shape.ranked && settings.rule == CacheRule::kMoeLrc)
    return fail(ErrorCode::kUsage, "the order of slots is unknown, and --rule moe-lrc serves experts in it.",
                trace.trace, "Use --rule set.");
  const int most = settings.shared ? shape.rows * shape.experts : shape.experts;
  SY_TRY(std::vector<int> sizes, cache_sizes(choice, most));
  const bool every_size = choice.slots.empty() || choice.slots == "all";
  if (!every_size) settings.max_slots = *std::max_element(sizes.begin(), sizes.end());

  CacheSimulation caches(shape.rows, shape.experts, settings);
  std::vector<std::unique_ptr<PlecSimulation>> predictive;
  if (plec) {
    SY_TRY(const std::vector<uint64_t> pairs, train_plec(simulation, choice));
    for (const int slots : sizes)
      predictive.push_back(std::make_unique<PlecSimulation>(
          shape.rows, shape.experts, settings.shared ? slots : slots * shape.rows, choice.step_tokens, pairs));
  }
  SY_CHECK(simulation.run(
      {},
      [&](const RoutingSlab& slab) -> Result<void> {
        SY_CHECK(caches.feed(slab));
        for (const auto& one : predictive) SY_CHECK(one->feed(slab));
        return {};
      },
      plec ? 0.5 : 0, 1));
  caches.finish();
  for (const auto& one : predictive) one->finish();

  const auto too_small =
      std::remove_if(sizes.begin(), sizes.end(), [&](int slots) { return slots < caches.min_slots(); });
  if (!every_size && too_small != sizes.end())
    return fail(ErrorCode::kUsage,
                fmt::format("{} slots are too few: a step demands up to {} experts of a cache.",
                            *std::min_element(sizes.begin(), sizes.end()), caches.min_slots()),
                "--slots",
                "Give more slots, or --rule moe-lrc, where the experts of a token may throw each other out.");
  const bool warm = choice.start == "warm";
  const OffloadMachine machine{choice.expert_mb * 1e6, choice.bandwidth_gb * 1e9, choice.layer_us * 1e-6};
  Document& out = simulation.document;
  out["scope"] = choice.scope;
  out["rule"] = choice.rule;
  out["start"] = choice.start;
  out["step_tokens"] = choice.step_tokens;
  out["steps"] = caches.steps();
  uint64_t demands = 0;
  for (int cache = 0; cache < caches.caches(); ++cache) demands += caches.demands(cache);
  const auto with_cost = [&](Document size, const OffloadCost& cost) {
    if (machine.bytes_per_s <= 0) return size;
    size["bytes"] = cost.bytes;
    size["stall_s"] = cost.stall_s;
    size["total_s"] = cost.total_s;
    return size;
  };
  out["policies"] = Document::array();
  for (size_t p = 0; p < settings.policies.size(); ++p) {
    Document list = Document::array();
    for (const int slots : sizes) {
      if (slots < caches.min_slots()) continue;
      uint64_t hits = 0;
      Document layers = Document::array();
      for (int cache = 0; cache < caches.caches(); ++cache) {
        const uint64_t here = caches.hits(p, cache, slots, warm);
        hits += here;
        if (!settings.shared)
          layers.push_back({{"layer", simulation.layer(cache)},
                            {"hits", here},
                            {"demands", caches.demands(cache)},
                            {"hit_rate", share(here, caches.demands(cache))}});
      }
      Document size = {{"slots", slots}, {"hits", hits}, {"demands", demands}, {"hit_rate", share(hits, demands)}};
      if (!settings.shared) size["layers"] = std::move(layers);
      list.push_back(with_cost(std::move(size), offload_cost(machine, caches.steps(), shape.rows, demands - hits)));
    }
    out["policies"].push_back({{"policy", name(settings.policies[p])}, {"sizes", std::move(list)}});
  }
  if (plec) {
    Document list = Document::array();
    for (size_t i = 0; i < predictive.size(); ++i) {
      const PlecTotals& totals = predictive[i]->totals();
      if (sizes[i] < caches.min_slots()) continue;
      Document layers = Document::array();
      for (int row = 0; row < shape.rows; ++row)
        layers.push_back({{"layer", simulation.layer(row)},
                          {"hits", totals.layer_hits[size_t(row)]},
                          {"demands", totals.layer_demands[size_t(row)]},
                          {"hit_rate", share(totals.layer_hits[size_t(row)], totals.layer_demands[size_t(row)])}});
      list.push_back(with_cost({{"slots", sizes[i]},
                                {"hits", totals.hits},
                                {"demands", totals.demands},
                                {"hit_rate", share(totals.hits, totals.demands)},
                                {"prefetched", totals.prefetched},
                                {"prefetched_in_vain", totals.prefetched_in_vain},
                                {"layers", std::move(layers)}},
                               predictive[i]->cost(machine)));
    }
    out["policies"].push_back({{"policy", "plec"},
                               {"trained_on", choice.train.empty() ? trace.trace : choice.train},
                               {"sizes", std::move(list)}});
  }
  return simulation.show();
}

}  // namespace

void add_simulate_cache(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace) {
  const auto [command, choice] = add_simulation<CacheChoice>(
      noun, cli, trace, "cache", "An expert cache: hits of each policy at each size.",
      "  switchyard simulate run.moetrace.h5 cache --slots all --csv\n"
      "  switchyard simulate run.moetrace.h5 cache --scope model --policies lru,plec --expert-mb "
      "12.6 --bandwidth-gb 25",
      simulate_cache);
  command
      ->add_option("--policies", choice->policies,
                   "lru, lfu, sch-M, moe-infinity, belady, static, plec, joined by commas")
      ->type_name("LIST");
  command->add_option("--slots", choice->slots, "Experts that fit: numbers joined by commas, or all (eighths)")
      ->type_name("LIST");
  command->add_option("--scope", choice->scope, "A cache for each layer, or one for the model")
      ->check(CLI::IsMember({"layer", "model"}));
  command->add_option("--rule", choice->rule, "set: a token's experts stay together; moe-lrc: as its functions do")
      ->check(CLI::IsMember({"set", "moe-lrc"}));
  command->add_option("--start", choice->start, "warm counts first touches as hits until the cache is full")
      ->check(CLI::IsMember({"cold", "warm"}));
  command
      ->add_option("--step-tokens", choice->step_tokens,
                   "Tokens that run together and demand what any of them chose (1)")
      ->check(CLI::Range(1, 65'536));
  command->add_option("--train", choice->train, "plec: count transitions in this trace instead")->type_name("TRACE");
  command->add_option("--expert-mb", choice->expert_mb, "Megabytes of an expert, for bytes and stalls")
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--bandwidth-gb", choice->bandwidth_gb, "GB/s to where experts are kept")
      ->check(CLI::Range(0.0, 1e9));
  command
      ->add_option("--layer-us", choice->layer_us, "Microseconds that a layer computes, behind which plec hides loads")
      ->check(CLI::Range(0.0, 1e12));
  command->add_option("--threads", choice->threads, "Threads (one per core)")->check(CLI::Range(0, 256));
}

}  // namespace switchyard

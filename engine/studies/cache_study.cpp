// An expert cache replayed (specs/analyses.md A8, A9).
#include <algorithm>
#include <memory>

#include "engine/placement/cache_simulation.h"
#include "engine/placement/hop_counter.h"
#include "engine/placement/plec_simulation.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

Result<void> check_policies(std::string_view list) {
  for (const std::string& word : words_of(list))
    if (word != "plec") SY_CHECK(parse_cache_policy(word));
  return {};
}

struct CacheSettings {
  CacheOptions caches;
  bool plec = false, warm = false, every_size = false;
  std::vector<int> sizes;
  OffloadMachine machine;
};

Result<std::vector<int>> cache_sizes(const std::string& slots, int most) {
  if (slots == "all") {
    std::vector<int> all;
    for (int size = 1; size <= most; ++size) all.push_back(size);
    return all;
  }
  if (!slots.empty()) return numbers_of<int>(slots, "--slots", 1, most);
  std::vector<int> sizes;  // an eighth, a quarter, half, three quarters and all
  for (const int eighths : {1, 2, 4, 6, 8})
    if (const int size = std::max(1, most * eighths / 8); sizes.empty() || sizes.back() != size) sizes.push_back(size);
  return sizes;
}

Result<CacheSettings> settings_of(const StudyRun& run) {
  const StudyOptions& options = run.options;
  const TraceShape& shape = run.shape();
  CacheSettings out;
  out.caches.rule = options.text("rule") == "set" ? CacheRule::kSet : CacheRule::kMoeLrc;
  if (!shape.ranked && out.caches.rule == CacheRule::kMoeLrc)
    return fail(ErrorCode::kUsage, "the order of slots is unknown, and --rule moe-lrc serves experts in it.",
                run.trace_path(), "Use --rule set.");
  out.caches.shared = options.text("scope") == "model";
  out.caches.step_tokens = options.number<int>("step-tokens");
  out.caches.threads = run.input.threads;
  out.caches.policies.clear();
  for (const std::string& word : words_of(options.text("policies"))) {
    if (word == "plec") {
      out.plec = true;
      continue;
    }
    SY_TRY(const CachePolicySpec policy, parse_cache_policy(word));
    out.caches.policies.push_back(policy);
  }
  const std::string& slots = options.text("slots");
  SY_TRY(out.sizes, cache_sizes(slots, out.caches.shared ? shape.rows * shape.experts : shape.experts));
  out.every_size = slots.empty() || slots == "all";
  if (!out.every_size) out.caches.max_slots = *std::max_element(out.sizes.begin(), out.sizes.end());
  out.warm = options.text("start") == "warm";
  out.machine = {options.number<double>("expert-mb") * 1e6, options.number<double>("bandwidth-gb") * 1e9,
                 options.number<double>("layer-us") * 1e-6};
  return out;
}

// Transitions that plec forecasts from, over the first half of the progress.
Result<std::vector<uint64_t>> train_plec(StudyRun& run) {
  const TraceShape& shape = run.shape();
  HopCounter counter(shape.rows, shape.experts, 1);
  const auto take = [&](const RoutingSlab& slab) { return counter.feed(slab); };
  const std::string& path = run.options.text("train");
  if (path.empty()) {
    run.notes.push_back(
        {"plec forecasts from transitions of this very trace; --train OTHER.moetrace.h5 shows what it "
         "can do on new text.",
         true});
    SY_CHECK(run.walk({}, take, 0, 0.5));
    return counter.all_pairs();
  }
  std::vector<std::unique_ptr<TraceReader>> readers(1);
  SY_TRY(readers[0], TraceReader::open(path, &run.task));
  for (const std::string& note : readers[0]->info().notes) run.notes.push_back({path + ": " + note + ".", true});
  SY_TRY(const TraceWalk other, TraceWalk::of(std::move(readers)));
  if (other.shape().rows != shape.rows || other.shape().experts != shape.experts)
    return fail(ErrorCode::kUsage,
                fmt::format("has {} layers of {} experts, the simulated trace {} of {}.", other.shape().rows,
                            other.shape().experts, shape.rows, shape.experts),
                path);
  SY_CHECK(other.run(take, &run.task, 0, 0.5));
  return counter.all_pairs();
}

Document with_cost(Document size, const OffloadMachine& machine, const OffloadCost& cost) {
  if (machine.bytes_per_s <= 0) return size;
  size["bytes"] = cost.bytes;
  size["stall_s"] = cost.stall_s;
  size["total_s"] = cost.total_s;
  return size;
}

Document layer_of(int layer, uint64_t hits, uint64_t demands) {
  return {{"layer", layer}, {"hits", hits}, {"demands", demands}, {"hit_rate", share(hits, demands)}};
}

Document policy_of(const StudyRun& run, const CacheSettings& settings, const CacheSimulation& caches, size_t policy) {
  Document list = Document::array();
  for (const int slots : settings.sizes) {
    if (slots < caches.min_slots()) continue;
    uint64_t hits = 0, demands = 0;
    Document layers = Document::array();
    for (int cache = 0; cache < caches.caches(); ++cache) {
      const uint64_t here = caches.hits(policy, cache, slots, settings.warm);
      hits += here;
      demands += caches.demands(cache);
      if (!settings.caches.shared) layers.push_back(layer_of(run.layer(cache), here, caches.demands(cache)));
    }
    Document size = {{"slots", slots}, {"hits", hits}, {"demands", demands}, {"hit_rate", share(hits, demands)}};
    if (!settings.caches.shared) size["layers"] = std::move(layers);
    list.push_back(with_cost(std::move(size), settings.machine,
                             offload_cost(settings.machine, caches.steps(), run.shape().rows, demands - hits)));
  }
  return {{"policy", name(settings.caches.policies[policy])}, {"sizes", std::move(list)}};
}

Document plec_of(const StudyRun& run, const CacheSettings& settings, int min_slots,
                 std::span<const std::unique_ptr<PlecSimulation>> predictive) {
  Document list = Document::array();
  for (size_t i = 0; i < predictive.size(); ++i) {
    const PlecTotals& totals = predictive[i]->totals();
    if (settings.sizes[i] < min_slots) continue;
    Document layers = Document::array();
    for (int row = 0; row < run.shape().rows; ++row)
      layers.push_back(layer_of(run.layer(row), totals.layer_hits[size_t(row)], totals.layer_demands[size_t(row)]));
    list.push_back(with_cost({{"slots", settings.sizes[i]},
                              {"hits", totals.hits},
                              {"demands", totals.demands},
                              {"hit_rate", share(totals.hits, totals.demands)},
                              {"prefetched", totals.prefetched},
                              {"prefetched_in_vain", totals.prefetched_in_vain},
                              {"layers", std::move(layers)}},
                             settings.machine, predictive[i]->cost(settings.machine)));
  }
  const std::string& train = run.options.text("train");
  return {{"policy", "plec"}, {"trained_on", train.empty() ? run.trace_path() : train}, {"sizes", std::move(list)}};
}

Result<Document> run_cache(StudyRun& run) {
  SY_TRY(const CacheSettings settings, settings_of(run));
  const TraceShape& shape = run.shape();
  CacheSimulation caches(shape.rows, shape.experts, settings.caches);
  std::vector<std::unique_ptr<PlecSimulation>> predictive;
  if (settings.plec) {
    SY_TRY(const std::vector<uint64_t> pairs, train_plec(run));
    for (const int slots : settings.sizes)
      predictive.push_back(std::make_unique<PlecSimulation>(shape.rows, shape.experts,
                                                            settings.caches.shared ? slots : slots * shape.rows,
                                                            settings.caches.step_tokens, pairs));
  }
  SY_CHECK(run.walk(
      {},
      [&](const RoutingSlab& slab) -> Result<void> {
        SY_CHECK(caches.feed(slab));
        for (const auto& one : predictive) SY_CHECK(one->feed(slab));
        return {};
      },
      settings.plec ? 0.5 : 0, 1));
  caches.finish();
  for (const auto& one : predictive) one->finish();

  const int smallest = *std::min_element(settings.sizes.begin(), settings.sizes.end());
  if (!settings.every_size && smallest < caches.min_slots())
    return fail(
        ErrorCode::kUsage,
        fmt::format("{} slots are too few: a step demands up to {} experts of a cache.", smallest, caches.min_slots()),
        "--slots", "Give more slots, or --rule moe-lrc, where the experts of a token may throw each other out.");
  const StudyOptions& options = run.options;
  Document out = {{"scope", options.text("scope")},
                  {"rule", options.text("rule")},
                  {"start", options.text("start")},
                  {"step_tokens", settings.caches.step_tokens},
                  {"steps", caches.steps()}};
  out["policies"] = Document::array();
  for (size_t p = 0; p < settings.caches.policies.size(); ++p)
    out["policies"].push_back(policy_of(run, settings, caches, p));
  if (settings.plec) out["policies"].push_back(plec_of(run, settings, caches.min_slots(), predictive));
  return out;
}

}  // namespace

StudyInfo cache_study() {
  StudyOption policies = list_option("policies", "lru,lfu,sch-16,belady,static",
                                     "lru, lfu, sch-M, moe-infinity, belady, static, plec, joined by commas");
  policies.check = check_policies;
  return {
      StudyKind::kSimulation,
      "cache",
      "A8, A9",
      "An expert cache: hits of each policy at each size",
      {std::move(policies), list_option("slots", "", "Experts that fit: numbers joined by commas, or all (eighths)"),
       choice_option("scope", {"layer", "model"}, "A cache for each layer, or one for the model"),
       choice_option("rule", {"set", "moe-lrc"}, "set: a token's experts stay together; moe-lrc: as its functions do"),
       choice_option("start", {"cold", "warm"}, "warm counts first touches as hits until the cache is full"),
       whole_option("step-tokens", "1", "Tokens that run together and demand what any of them chose", 1, 65'536),
       file_option("train", "plec: count transitions in this trace instead"),
       real_option("expert-mb", "", "Megabytes of an expert, for bytes and stalls", 0, 1e9),
       real_option("bandwidth-gb", "", "GB/s to where experts are kept", 0, 1e9),
       real_option("layer-us", "", "Microseconds that a layer computes, behind which plec hides loads", 0, 1e12)},
      {"--slots all --csv", "--scope model --policies lru,plec --expert-mb 12.6 --bandwidth-gb 25"},
      true,
      true,
      "policies.sizes",
      "hit_rate",
      nullptr,
      run_cache};
}

}  // namespace switchyard

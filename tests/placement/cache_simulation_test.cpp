// The cache simulations against specs/analyses.md A8 and A9, a plain simulator, brute force, and tables made by hand.
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "engine/analysis/affinity.h"
#include "engine/placement/cache_simulation.h"
#include "engine/placement/plec_simulation.h"
#include "tests/placement/check_data.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

struct SmallTrace {
  int rows = 1, experts = 1, k = 1;
  std::vector<ExpertId> ids;  // [rows, tokens, k]
  std::vector<uint32_t> sequence, position;

  SmallTrace(int rows_, int experts_, int k_, std::vector<ExpertId> ids_, std::vector<uint32_t> sequence_ = {})
      : rows(rows_), experts(experts_), k(k_), ids(std::move(ids_)), sequence(std::move(sequence_)) {
    const size_t tokens = ids.size() / size_t(rows * k);
    if (sequence.empty()) sequence.assign(tokens, 0);
    position.assign(tokens, 0);
  }
  RoutingSlab slab() const {
    RoutingSlab slab;
    slab.tokens = int(sequence.size());
    slab.rows = rows;
    slab.experts = experts;
    slab.k = k;
    slab.ids = ids;
    slab.sequence = sequence;
    slab.position = position;
    return slab;
  }
};

CacheOptions with(std::vector<std::string> policies, CacheRule rule = CacheRule::kSet) {
  CacheOptions options;
  options.rule = rule;
  options.policies.clear();
  for (const auto& text : policies) options.policies.push_back(parse_cache_policy(text).value());
  return options;
}

const std::vector<std::string> kPolicies = {"lru", "lfu", "belady", "sch-2", "sch-4", "sch-16"};

// MT1 is one piece per sequence, SYN one piece.
struct Simulated {
  std::vector<std::unique_ptr<CacheSimulation>> pieces;
};
const Simulated& simulated(const std::string& input, CacheRule rule, bool shared) {
  static std::map<std::tuple<std::string, CacheRule, bool>, Simulated> known;
  Simulated& s = known[{input, rule, shared}];
  if (!s.pieces.empty()) return s;
  const CheckTrace& trace = trace_named(input);
  CacheOptions options = with(kPolicies, rule);
  options.shared = shared;
  options.threads = 2;
  SlabTrace(trace).walk(input == "MT1" ? 8 : trace.tokens, [&](const RoutingSlab& slab, int row) {
    if (row != 0) return;
    s.pieces.push_back(std::make_unique<CacheSimulation>(trace.layers, trace.experts, options));
    EXPECT_TRUE(s.pieces.back()->feed(slab));
    s.pieces.back()->finish();
  });
  return s;
}

TEST(CacheSimulation, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("cache")) {
    const auto& p = check["params"];
    const std::string mode = p["mode"];
    const CacheRule rule = mode.starts_with("set") ? CacheRule::kSet : CacheRule::kMoeLrc;
    const bool warm = mode.ends_with("warm"), shared = p["scope"] == "model", by_sequence = check["input"] == "MT1";
    const size_t policy =
        size_t(std::find(kPolicies.begin(), kPolicies.end(), p["policy"].get<std::string>()) - kPolicies.begin());
    ASSERT_LT(policy, kPolicies.size());
    const Simulated& s = simulated(check["input"], rule, shared);
    ASSERT_LE(s.pieces[0]->min_slots(), p["slots"].get<int>());
    json hits = json::array(), demands;
    for (int cache = 0; cache < s.pieces[0]->caches(); ++cache) {
      json of_pieces = json::array();
      for (const auto& piece : s.pieces) of_pieces.push_back(piece->hits(policy, cache, p["slots"], warm));
      demands.push_back(s.pieces[0]->demands(cache));
      hits.push_back(by_sequence ? of_pieces : of_pieces[0]);
    }
    expect_expected(check, {{"hits", shared ? hits[0] : hits}, {"demands", by_sequence ? demands[0] : demands}});
    ++compared;
  }
  EXPECT_EQ(compared, 105);
}

// Two sequences in one simulation are the sum of two simulations; slabs may end anywhere.
TEST(CacheSimulation, SequencesStartEmptyAndSlabsMayBreakThem) {
  CacheOptions options = with(kPolicies);
  CacheSimulation together(3, 4, options);
  SlabTrace(mt1()).walk(3, [&](const RoutingSlab& slab, int row) {
    if (row != 0) return;
    EXPECT_TRUE(together.feed(slab));
  });
  together.finish();
  const Simulated& apart = simulated("MT1", CacheRule::kSet, false);
  for (size_t p = 0; p < kPolicies.size(); ++p)
    for (int slots = 2; slots <= 4; ++slots)
      EXPECT_EQ(together.hits(p, 1, slots, false),
                apart.pieces[0]->hits(p, 1, slots, false) + apart.pieces[1]->hits(p, 1, slots, false));
  EXPECT_EQ(together.steps(), 16u);
}

// One cache of one size, written as specs/analyses.md A8 says it, without stacks. Times count accesses.
uint64_t plain_hits(const std::vector<std::vector<int>>& tokens, int experts, size_t slots, const CachePolicySpec& spec,
                    CacheRule rule, bool warm) {
  std::set<int> cache, touched;
  std::vector<long> last(experts, -1), count(experts, 0);
  std::vector<std::pair<long, size_t>> accesses;  // expert, token
  for (size_t t = 0; t < tokens.size(); ++t)
    for (const int e : tokens[t]) accesses.push_back({e, t});
  uint64_t hits = 0;
  size_t at = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (const int e : tokens[t]) {
      const bool first = touched.insert(e).second;
      hits += cache.count(e) || (warm && first && touched.size() <= slots);
    }
    for (size_t slot = 0; slot < tokens[t].size(); ++slot, ++at) {
      const int e = tokens[t][slot];
      last[e] = long(at);
      ++count[e];
      if (cache.count(e)) continue;
      if (cache.size() == slots) {
        const auto uses_ahead = [&](int x) {
          long uses = 0;
          for (size_t a = at + 1; a < accesses.size(); ++a)
            uses += accesses[a].first == x && accesses[a].second < t + size_t(spec.window);
          return uses;
        };
        const auto next_use = [&](int x) {
          for (size_t a = at + 1; a < accesses.size(); ++a)
            if (accesses[a].first == x) return long(a);
          return long(1) << 40;
        };
        const auto worth = [&](int x) -> std::pair<long, long> {
          switch (spec.policy) {
            case CachePolicy::kLru:
              return {last[x], 0};
            case CachePolicy::kLfu:
              return {count[x], last[x]};
            case CachePolicy::kBelady:
              return {-next_use(x), 0};
            default:
              return {uses_ahead(x), last[x]};
          }
        };
        int worst = -1;
        for (const int x : cache) {
          if (rule == CacheRule::kSet && std::count(tokens[t].begin(), tokens[t].end(), x)) continue;
          if (worst < 0 || worth(x) < worth(worst)) worst = x;
        }
        cache.erase(worst);
      }
      cache.insert(e);
    }
  }
  return hits;
}

SmallTrace random_trace(std::mt19937& random, int rows, int experts, int k, int tokens, int empty_percent) {
  std::vector<ExpertId> ids;
  for (int i = 0; i < rows * tokens; ++i) {
    std::vector<ExpertId> all(static_cast<size_t>(experts));
    for (int e = 0; e < experts; ++e) all[e] = ExpertId(e);
    std::shuffle(all.begin(), all.end(), random);
    const int chosen = int(random() % 100) < empty_percent ? int(random() % (k + 1)) : k;
    for (int s = 0; s < k; ++s) ids.push_back(s < chosen ? all[s] : kNoExpert);
  }
  return SmallTrace(rows, experts, k, ids);
}

// Expert e of row r is r * experts + e, as in a cache shared by all rows.
std::vector<std::vector<int>> demands_of(const SmallTrace& trace, int first_row, int rows) {
  std::vector<std::vector<int>> out(trace.sequence.size());
  for (size_t t = 0; t < out.size(); ++t)
    for (int r = first_row; r < first_row + rows; ++r)
      for (const ExpertId e : trace.slab().token(r, int(t)))
        if (e != kNoExpert) out[t].push_back((r - first_row) * trace.experts + e);
  return out;
}

TEST(CacheSimulation, TheStackOfAllSizesAgreesWithAPlainCacheOfEach) {
  std::mt19937 random(5);
  const std::vector<std::string> policies = {"lru", "lfu", "belady", "sch-1", "sch-3", "sch-40"};
  for (int round = 0; round < 40; ++round) {
    const int k = 1 + int(random() % 3), experts = k + 1 + int(random() % 5);
    const SmallTrace trace = random_trace(random, 2, experts, k, 25, round % 2 ? 30 : 0);
    for (const CacheRule rule : {CacheRule::kSet, CacheRule::kMoeLrc}) {
      for (const bool shared : {false, true}) {
        CacheOptions options = with(policies, rule);
        options.shared = shared;
        CacheSimulation simulation(2, experts, options);
        ASSERT_TRUE(simulation.feed(trace.slab()));
        simulation.finish();
        for (int cache = 0; cache < simulation.caches(); ++cache) {
          const auto demands = demands_of(trace, cache, shared ? 2 : 1);
          for (size_t p = 0; p < policies.size(); ++p)
            for (int slots = simulation.min_slots(); slots <= simulation.max_slots(); ++slots)
              for (const bool warm : {false, true})
                ASSERT_EQ(simulation.hits(p, cache, slots, warm),
                          plain_hits(demands, experts * 2, size_t(slots), options.policies[p], rule, warm))
                    << "round " << round << " " << policies[p] << " slots " << slots << " warm " << warm << " shared "
                    << shared;
        }
      }
    }
  }
}

// Fewest misses over all choices of what to keep: f(token, resident set) by dynamic programming over sets.
uint64_t most_hits(const std::vector<std::vector<int>>& tokens, int experts, int slots) {
  std::map<unsigned, uint64_t> best = {{0u, 0}};
  for (const auto& demand : tokens) {
    unsigned wanted = 0;
    for (const int e : demand) wanted |= 1u << e;
    std::map<unsigned, uint64_t> after;
    for (const auto& [resident, hits] : best) {
      const uint64_t now = hits + uint64_t(__builtin_popcount(resident & wanted));
      const unsigned candidates = resident | wanted;
      for (unsigned kept = 0; kept < 1u << experts; ++kept)
        if ((kept & wanted) == wanted && (kept & ~candidates) == 0 && __builtin_popcount(kept) <= slots)
          after[kept] = std::max(after[kept], now);
    }
    best = std::move(after);
  }
  uint64_t most = 0;
  for (const auto& [resident, hits] : best) most = std::max(most, hits);
  return most;
}

TEST(CacheSimulation, BeladyByTheSetRuleIsTheOptimum) {
  std::mt19937 random(7);
  for (int round = 0; round < 150; ++round) {
    const int k = 1 + int(random() % 2), experts = 4 + int(random() % 2);
    const SmallTrace trace = random_trace(random, 1, experts, k, 12, 10);
    CacheSimulation simulation(1, experts, with({"belady", "lru"}));
    ASSERT_TRUE(simulation.feed(trace.slab()));
    simulation.finish();
    for (int slots = std::max(k, simulation.min_slots()); slots <= experts; ++slots) {
      const uint64_t most = most_hits(demands_of(trace, 0, 1), experts, slots);
      EXPECT_EQ(simulation.hits(0, 0, slots, false), most);
      EXPECT_LE(simulation.hits(1, 0, slots, false), most);
    }
  }
}

// Two slots, k = 1, cold. What is thrown out stands behind the slash; a hit is +.
//   token    0     1     2     3     4     5     6     7
//   expert   0     1     2     0     0     2     1     0
//   LRU      0     0,1   1,2/0 2,0/1 +     +     2,1/0 1,0/2   2 hits
//   LFU      0     0,1   1,2/0 2,0/1 +     +     0,1/2 +       3: counts 0:3 2:2 at token 6
//   Belady   0     0,1   0,2/1 +     +     +     0,1/2 +       4: 0 is next at 3, 1 at 6; then 2 never again
//   SCH-2    0     0,1   0,2/1 +     +     +     0,1/2 +       4: token 3 wants 0; token 7 wants 0
//   static   the two most used, 0 (4 times) and 1 (2, the lower id of two)                       6
//   warm     the first touches of 0 and 1 count: every count but static's rises by 2
//   expert   0     1     2     2     0     1     0     2
//   LRU      0     0,1   1,2/0 +     2,0/1 0,1/2 +     0,2/1   2
//   LFU      0     0,1   1,2/0 +     2,0/1 0,1/2 +     0,2/1   2: 2 and 0 both twice at token 5, 2 longer ago
//   Belady   0     0,1   0,2/1 +     +     0,1/2 +     0,2/1   3
//   SCH-2    0     0,1   1,2/0 +     1,0/2 +     +     0,2/1   3: token 3 wants neither 0 nor 1, 0 is older
//   static   0 and 2, three times each                                                           6
TEST(CacheSimulation, MatchesTheTablesMadeByHand) {
  struct Case {
    std::vector<ExpertId> ids;
    std::vector<uint64_t> hits;
  };
  const Case cases[] = {{{0, 1, 2, 0, 0, 2, 1, 0}, {2, 3, 4, 4, 6}}, {{0, 1, 2, 2, 0, 1, 0, 2}, {2, 2, 3, 3, 6}}};
  for (const Case& c : cases) {
    for (const CacheRule rule : {CacheRule::kSet, CacheRule::kMoeLrc}) {  // the same for k = 1
      CacheSimulation simulation(1, 3, with({"lru", "lfu", "belady", "sch-2", "static"}, rule));
      ASSERT_TRUE(simulation.feed(SmallTrace(1, 3, 1, c.ids).slab()));
      simulation.finish();
      EXPECT_EQ(simulation.demands(0), 8u);
      for (size_t p = 0; p < c.hits.size(); ++p) {
        EXPECT_EQ(simulation.hits(p, 0, 2, false), c.hits[p]) << "policy " << p;
        EXPECT_EQ(simulation.hits(p, 0, 2, true), c.hits[p] + (p < 4 ? 2 : 0)) << "policy " << p;
        EXPECT_EQ(simulation.hits(p, 0, 3, false), p < 4 ? 5u : 8u) << "everything fits: only first touches miss";
      }
    }
  }
}

// Two slots, k = 1, cold, three requests. The first runs as LRU: 0 1 0 1 0 1 0 1, 6 hits. The second knows the first
// only: 2 3 2 3 2 3 2 3, 6 hits. The third; nearest before each token by the counts so far, equal cosines: the first:
//   token    0     1     2     3     4     5     6     7
//   nearest  1st   2nd   2nd   2nd   2nd   2nd   2nd   2nd      (so far 3 | 3,2 | 3,2,0 | ...)
//   expert   3     2     0     3     2     1     3     2
//   cache    3     3,2   2,0/3 2,3/0 +     2,1/3 2,3/1 +        2 hits: 2 and 3 are worth a half each, 0 and 1 nothing
//   LRU      3     3,2   2,0/3 0,3/2 3,2/0 2,1/3 1,3/2 3,2/1    0
TEST(CacheSimulation, AnEarlierRequestTellsWhatToKeep) {
  std::vector<ExpertId> ids;
  std::vector<uint32_t> sequence;
  for (const std::vector<ExpertId>& request :
       {std::vector<ExpertId>{0, 1, 0, 1, 0, 1, 0, 1}, {2, 3, 2, 3, 2, 3, 2, 3}, {3, 2, 0, 3, 2, 1, 3, 2}}) {
    ids.insert(ids.end(), request.begin(), request.end());
    sequence.insert(sequence.end(), 8, sequence.empty() ? 0 : sequence.back() + 1);
  }
  CacheSimulation simulation(1, 4, with({"moe-infinity", "lru"}));
  ASSERT_TRUE(simulation.feed(SmallTrace(1, 4, 1, ids, sequence).slab()));
  simulation.finish();
  EXPECT_EQ(simulation.hits(0, 0, 2, false), 6u + 6u + 2u);
  EXPECT_EQ(simulation.hits(1, 0, 2, false), 6u + 6u + 0u);
}

// The first trace in steps of two tokens: {0,1} {2,0} {0,2} {1,0}. LRU, 2 slots: 0, 2, 2 and 1 hits of 2, 1 thrown out
// at the second step, 2 at the last.
TEST(CacheSimulation, TokensThatRunTogetherDemandOnce) {
  CacheOptions options = with({"lru"});
  options.step_tokens = 2;
  CacheSimulation simulation(1, 3, options);
  ASSERT_TRUE(simulation.feed(SmallTrace(1, 3, 1, {0, 1, 2, 0, 0, 2, 1, 0}).slab()));
  ASSERT_TRUE(simulation.feed(SmallTrace(1, 3, 1, {1, 1, 1}, {1, 1, 1}).slab()));
  simulation.finish();
  EXPECT_EQ(simulation.min_slots(), 2);
  EXPECT_EQ(simulation.demands(0), 8u + 2u);
  EXPECT_EQ(simulation.steps(), 4u + 2u);
  EXPECT_EQ(simulation.hits(0, 0, 2, false), 1u + 2u + 1u + 1u);
}

TEST(CacheSimulation, MissesCostTheirBytesOverTheBandwidth) {
  // Mixtral in bf16: 352 MB an expert; 10 misses over 25 GB/s are 140.8 ms, beside 4 tokens of 32 layers at 1 ms.
  const OffloadCost cost = offload_cost({352e6, 25e9, 1e-3}, 4, 32, 10);
  EXPECT_DOUBLE_EQ(cost.bytes, 3.52e9);
  EXPECT_DOUBLE_EQ(cost.stall_s, 0.1408);
  EXPECT_DOUBLE_EQ(cost.total_s, 0.128 + 0.1408);
}

TEST(CacheSimulation, RefusesUnknownPoliciesAndForeignIds) {
  for (const char* text : {"", "mru", "sch-", "sch-0", "sch-2x", "sch--1", "LRU"}) {
    const auto policy = parse_cache_policy(text);
    ASSERT_FALSE(policy) << text;
    EXPECT_EQ(policy.error().code, ErrorCode::kUsage);
  }
  EXPECT_EQ(name(parse_cache_policy("sch-16").value()), "sch-16");
  CacheSimulation simulation(1, 3, with({"lru"}));
  EXPECT_FALSE(simulation.feed(SmallTrace(1, 4, 1, {0, 3}).slab()));
  simulation.finish();
  EXPECT_EQ(simulation.demands(0), 0u);
}

std::vector<uint64_t> pairs_of(const SmallTrace& trace) {
  Affinity affinity(trace.rows, trace.experts);
  for (int t = 0; t < int(trace.sequence.size()); ++t)
    for (int r = 0; r + 1 < trace.rows; ++r)
      EXPECT_TRUE(affinity.feed(r, trace.slab().token(r, t), trace.slab().token(r + 1, t)));
  std::vector<uint64_t> counts;
  for (int r = 0; r + 1 < trace.rows; ++r)
    counts.insert(counts.end(), affinity.topk(r).begin(), affinity.topk(r).end());
  return counts;
}

// Two layers, three experts, k = 1, three slots; quotas 2 and 1 in every step (one expert forecast for each layer, the
// odd slot to the earlier). From the counts: 0 is followed by 1, 1 by 2, 2 by 0 (or 1: once each, the lower id).
//   token            0      1      2      3      4      5      6      7
//   layer 0 chooses  0      1      0      2      0      1      2      0
//   resident after   0      0,1    + 0,1  0,2/1  + 0,2  0,1/2  1,2/0  2,0/1      2 hits
//   layer 1 forecast 1      2      1      0      1      2      0      1
//   loaded ahead     1      2/1    1/2    0/1    1/0    2/1    0/2    -          7 loads
//   layer 1 chooses  1 +    2 +    1 +    0 +    1 +    2 +    1      1 +        7 hits
//   (token 6: 0 was loaded in vain; 1 is swapped in for it)
TEST(Plec, MatchesTheTableMadeByHand) {
  const SmallTrace trace(2, 3, 1, {0, 1, 0, 2, 0, 1, 2, 0, /**/ 1, 2, 1, 0, 1, 2, 1, 1});
  PlecSimulation simulation(2, 3, 3, 1, pairs_of(trace));
  ASSERT_TRUE(simulation.feed(trace.slab()));
  simulation.finish();
  const PlecTotals& totals = simulation.totals();
  EXPECT_EQ(totals.layer_demands, (std::vector<uint64_t>{8, 8}));
  EXPECT_EQ(totals.layer_hits, (std::vector<uint64_t>{2, 7}));
  EXPECT_EQ(totals.prefetched, 7u);
  EXPECT_EQ(totals.prefetched_in_vain, 1u);
}

// Steps of two tokens, three slots, quotas 2 and 1. Step 0 chooses {0,1}, then {1,2}: layer 1 loads 1 into the free
// slot and 2 into the slot of 0, which the finished layer 0 has freed: 2 hits. Step 1 chooses {0}, then {1}: layer 0,
// below its quota, takes the slot of layer 1's expert 1 (used before 2); layer 1 loads 1 for 2: 1 hit.
TEST(Plec, FinishedLayersFreeTheirSlots) {
  const SmallTrace trace(2, 3, 1, {0, 1, 0, 0, /**/ 1, 2, 1, 1});
  PlecSimulation simulation(2, 3, 3, 2, pairs_of(trace));
  ASSERT_TRUE(simulation.feed(trace.slab()));
  simulation.finish();
  const PlecTotals& totals = simulation.totals();
  EXPECT_EQ(totals.demands, 6u);
  EXPECT_EQ(totals.layer_hits, (std::vector<uint64_t>{0, 3}));
  EXPECT_EQ(totals.prefetched, 3u);
  EXPECT_EQ(totals.prefetched_in_vain, 0u);
  EXPECT_EQ(simulation.steps(), 2u);
  // 0.1 s a load, 0.15 s a layer: layers that load 0, 2, 0 and 1 ahead, and three misses.
  const OffloadCost cost = simulation.cost({10, 100, 0.15});
  EXPECT_DOUBLE_EQ(cost.bytes, 60);
  EXPECT_DOUBLE_EQ(cost.stall_s, 0.3);
  EXPECT_DOUBLE_EQ(cost.total_s, 0.15 + 0.2 + 0.15 + 0.15 + 0.3);
}

// With room for everything, only layer 0's first touches and wrong forecasts of new experts miss.
TEST(Plec, MoreSlotsHitMore) {
  const CheckTrace& trace = syn();
  Affinity affinity(trace.layers, trace.experts);
  std::vector<uint64_t> counts;
  for (int l = 0; l + 1 < trace.layers; ++l) {
    for (int t = 0; t < trace.tokens; ++t) ASSERT_TRUE(affinity.feed(l, trace.token(l, t), trace.token(l + 1, t)));
    counts.insert(counts.end(), affinity.topk(l).begin(), affinity.topk(l).end());
  }
  uint64_t hits = 0;
  for (const int slots : {16, 32, 48, 64}) {
    PlecSimulation simulation(trace.layers, trace.experts, slots, 1, counts);
    ASSERT_TRUE(simulation.feed(SlabTrace(trace).whole()));
    simulation.finish();
    EXPECT_EQ(simulation.totals().demands, 32000u);
    EXPECT_GT(simulation.totals().hits, hits) << slots;
    hits = simulation.totals().hits;
  }
  EXPECT_GE(hits, 32000u - 10u * 64u);  // ten sequences, each expert missed once at most
}

}  // namespace
}  // namespace switchyard::testing

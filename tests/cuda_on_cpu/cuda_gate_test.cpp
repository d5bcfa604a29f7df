// The decision on the device against route() on equal logits: ids, weights, kinds, statistics, record and what is
// executed. Native routers of all score functions, every scheme of the registry that the table holds, edits; ties, NaN,
// infinities.
#include <cstring>
#include <map>
#include <random>

#include "engine/backend/cuda/gate_tables.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/records.h"
#include "engine/routing/decision.h"
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {
namespace {

struct Case {
  std::string name;
  RouterSpec spec;
  LayerRecipe recipe;
  bool native = false;  // no recipe at all
};

constexpr int kTokens = 12, kVocab = 40, kPosition = 5;
constexpr uint32_t kSequence = 3;
constexpr int kRow = 2;

class Numbers {
 public:
  explicit Numbers(uint32_t seed) : random_(seed) {}
  std::vector<float> normal(size_t count, float spread = 1) {
    std::vector<float> out(count);
    for (float& value : out) value = spread * std::normal_distribution<float>()(random_);
    return out;
  }
  std::vector<uint8_t> some(size_t count, int one_in) {
    std::vector<uint8_t> out(count);
    for (uint8_t& value : out) value = random_() % unsigned(one_in) == 0;
    return out;
  }

 private:
  std::mt19937 random_;
};

// Plain, with ties, one expert far ahead, NaN, both infinities, all NaN, all -inf.
std::vector<float> logits_of(int experts) {
  Numbers numbers(uint32_t(experts) * 7 + 1);
  std::vector<float> out = numbers.normal(size_t(kTokens) * size_t(experts), 2);
  const auto row = [&](int token) { return out.data() + token * experts; };
  for (int e = 0; e < experts; ++e) row(1)[e] = float(e % 3), row(2)[e] = 0.25f, row(7)[e] = -INFINITY, row(8)[e] = NAN;
  row(3)[experts / 2] = 90;
  row(4)[0] = NAN, row(5)[experts - 1] = INFINITY, row(6)[1] = -INFINITY;
  row(6)[experts - 1] = NAN;
  for (int e = 0; e < experts; ++e) row(9)[e] *= 60;  // scores underflow
  return out;
}

struct Decided {
  Decision decision;
  std::vector<ExpertId> ids;
  std::vector<float> weights;
  std::vector<SlotKind> kinds;
};

Decided on_host(const Case& c, const std::vector<float>& logits, const std::vector<float>& router_bias,
                const std::vector<float>& select_bias, int token, TokenId id) {
  const LayerRecipe* recipe = c.native ? nullptr : &c.recipe;
  const size_t slots = size_t(slots_needed(c.spec, recipe)), experts = size_t(c.spec.experts);
  std::vector<float> raw(logits.begin() + token * long(experts), logits.begin() + (token + 1) * long(experts));
  for (size_t e = 0; e < router_bias.size(); ++e) raw[e] += router_bias[e];
  Decided out{{}, std::vector<ExpertId>(slots), std::vector<float>(slots), std::vector<SlotKind>(slots)};
  std::vector<float> scratch(scratch_needed(c.spec, recipe));
  RouterInput in{.logits = raw,
                 .router_bias = router_bias,
                 .select_bias = select_bias,
                 .token = id,
                 .index = uint64_t(kPosition + token),
                 .first_index = kPosition,
                 .sequence = kSequence,
                 .row = kRow};
  out.decision = route(c.spec, recipe, in, scratch, {out.ids, out.weights, out.kinds});
  return out;
}

bool same(float a, float b) {
  if (exact()) return std::memcmp(&a, &b, sizeof(a)) == 0 || a == b;
  return a == b || std::abs(a - b) <= 1e-5f * std::max(1.0f, std::abs(a)) || (std::isnan(a) && std::isnan(b));
}

void expect_decisions(const Case& c) {
  SCOPED_TRACE(c.name + ", E " + std::to_string(c.spec.experts));
  ASSERT_EQ(beyond_table(c.recipe), "");
  const size_t experts = size_t(c.spec.experts);
  const std::vector<float> logits = logits_of(c.spec.experts);
  Numbers numbers(11);
  const std::vector<float> router_bias = c.spec.has_logit_bias ? numbers.normal(experts, 0.3f) : std::vector<float>();
  const std::vector<float> select_bias = c.spec.has_select_bias ? numbers.normal(experts, 0.2f) : std::vector<float>();
  const OnDevice<float> bias_there(router_bias), select_there(select_bias), logits_there(logits);

  const LayerRecipe* recipe = c.native ? nullptr : &c.recipe;
  GatePage page;
  const ModelGate gate{c.spec, router_bias.empty() ? nullptr : bias_there.data(),
                       select_bias.empty() ? nullptr : select_there.data()};
  for (int row = 0; row < kRow; ++row) page.add(gate, nullptr, 0);
  page.add(gate, recipe, 9);
  const OnDevice<unsigned char> arrays(page.arrays());
  page.place(arrays.data());
  const OnDevice<GateTable> tables(page.tables());
  const GateTable& table = page.tables().back();

  std::vector<int32_t> ids;
  for (int t = 0; t < kTokens; ++t) ids.push_back(t * 3 % kVocab);
  const OnDevice<int32_t> ids_there(ids);
  StepState step{
      .position = kPosition, .count = kTokens, .sequence = kSequence, .record = 70, .tokens = ids_there.data()};
  const OnDevice<StepState> state(std::vector<StepState>{step});
  const int slots = table.slots;
  const OnDevice<int32_t> count(kTokens);
  const OnDevice<ExpertId> chosen(size_t(kTokens * slots));
  const OnDevice<float> weights(size_t(kTokens * slots)), inputs(size_t(kTokens * slots)), biased(logits.size());
  const RecordLayout layout = record_layout(kRow + 1, c.spec.experts, slots + table.nulls, CaptureLevel::kLogits);
  const OnDevice<unsigned char> records(layout.token_bytes() * 32);
  RouteJob job{.tables = tables.data(),
               .row = kRow,
               .logits = logits_there.data(),
               .biased = biased.data(),
               .width = table.experts + table.nulls,
               .slots = slots,
               .chosen = {count.data(), chosen.data(), weights.data(), inputs.data(), slots},
               .ring = {records.data(), 32, layout}};
  launch_route_rows(stream(), state.data(), job, kTokens);

  const auto all_records = records.get();
  const auto counts = count.get();
  const auto run = chosen.get();
  const auto run_weights = weights.get(), run_inputs = inputs.get();
  for (int t = 0; t < kTokens; ++t) {
    SCOPED_TRACE("token " + std::to_string(t));
    const Decided expected = on_host(c, logits, router_bias, select_bias, t, ids[size_t(t)]);
    const Recorded got(layout, all_records.data() + size_t((70 + t) % 32) * layout.token_bytes(), kRow);
    ASSERT_EQ(got.head().k_used, expected.decision.k_used);
    ASSERT_EQ(got.head().nulls, expected.decision.nulls);
    ASSERT_EQ(got.head().changed, expected.decision.changed);
    ASSERT_EQ(got.head().had_nan, expected.decision.had_nan);
    ASSERT_EQ(got.head().epoch, 9u);
    ASSERT_EQ(got.head().written, uint32_t(71 + t));
    const DecisionStats &a = got.head().stats, &b = expected.decision.stats;
    ASSERT_TRUE(same(a.entropy, b.entropy) && same(a.topk_mass, b.topk_mass) && same(a.margin, b.margin) &&
                same(a.lse, b.lse))
        << a.entropy << " " << b.entropy << ", " << a.topk_mass << " " << b.topk_mass << ", " << a.margin << " "
        << b.margin << ", " << a.lse << " " << b.lse;
    const int used = expected.decision.k_used + expected.decision.nulls;
    for (int slot = 0; slot < used; ++slot) {
      ASSERT_EQ(got.ids()[size_t(slot)], expected.ids[size_t(slot)]) << "slot " << slot;
      ASSERT_EQ(got.kinds()[size_t(slot)], expected.kinds[size_t(slot)]) << "slot " << slot;
      ASSERT_TRUE(same(got.weights()[size_t(slot)], expected.weights[size_t(slot)]))
          << got.weights()[size_t(slot)] << " " << expected.weights[size_t(slot)];
    }
    std::map<ExpertId, float> runs;
    for (int slot = 0; slot < expected.decision.k_used; ++slot)
      runs[expected.ids[size_t(slot)]] = expected.weights[size_t(slot)];
    ASSERT_EQ(size_t(counts[size_t(t)]), runs.size());
    size_t place = size_t(t * slots);
    for (const auto& [id, weight] : runs) {
      const float scale = recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[id] : 1.0f;
      ASSERT_EQ(run[place], id);
      const bool of_input = c.spec.apply == ApplyTo::kInput;
      ASSERT_TRUE(same(run_weights[place], of_input ? scale : weight * scale));
      ASSERT_TRUE(same(run_inputs[place], of_input ? weight : 1.0f));
      ++place;
    }
  }
}

RouterSpec spec_of(int experts, int k, ScoreFn score, Renorm renorm) {
  RouterSpec spec;
  spec.experts = experts, spec.experts_per_token = k, spec.score = score, spec.renorm = renorm;
  return spec;
}

std::vector<Case> native_routers() {
  std::vector<Case> out;
  for (const auto& [experts, k] : {std::pair(8, 2), {60, 4}, {64, 8}, {128, 8}, {4, 4}, {33, 1}}) {
    for (const ScoreFn score : {ScoreFn::kSoftmaxAll, ScoreFn::kSoftmaxTopK, ScoreFn::kSigmoid, ScoreFn::kSigmoidTopK,
                                ScoreFn::kSparseMixer, ScoreFn::kNone}) {
      Case c{"score " + std::to_string(int(score)), spec_of(experts, k, score, Renorm::kNone), {}, true};
      if (score == ScoreFn::kSparseMixer) c.spec.jitter = 0.01f;
      out.push_back(c);
    }
    for (const Renorm renorm : {Renorm::kSum, Renorm::kSumEps20, Renorm::kSumEps6, Renorm::kMaxSum, Renorm::kPNorm}) {
      Case c{"renorm " + std::to_string(int(renorm)), spec_of(experts, k, ScoreFn::kSigmoid, renorm), {}, true};
      c.spec.renorm_floor = 2, c.spec.scale = 2.5f, c.spec.has_select_bias = true,
      c.spec.has_logit_bias = experts % 2 == 0;
      out.push_back(c);
    }
  }
  for (const GroupScore score : {GroupScore::kMax, GroupScore::kTop2Sum})
    for (const GroupFill fill : {GroupFill::kZero, GroupFill::kMinusInfinity}) {
      Case c{"groups",
             spec_of(256, 8, score == GroupScore::kMax ? ScoreFn::kSoftmaxAll : ScoreFn::kSigmoid, Renorm::kSumEps20),
             {},
             true};
      c.spec.groups = 8, c.spec.groups_kept = 3, c.spec.group_score = score, c.spec.group_fill = fill,
      c.spec.has_select_bias = true;
      out.push_back(c);
    }
  Case input{"weights of the input", spec_of(16, 1, ScoreFn::kSigmoidTopK, Renorm::kNone), {}, true};
  input.spec.apply = ApplyTo::kInput;
  out.push_back(input);
  return out;
}

TEST(Gate, NativeRoutersDecideAsRoute) {
  for (const Case& c : native_routers()) expect_decisions(c);
}

// Every edit of logits, selection and weights on top of a router or a scheme.
void edit(LayerRecipe& recipe, int experts) {
  Numbers numbers(17);
  recipe.k = 3, recipe.temperature = 0.7f;
  recipe.row_scale = numbers.normal(size_t(experts));
  recipe.logit_bias = numbers.normal(size_t(experts), 0.5f);
  recipe.select_bias = numbers.normal(size_t(experts), 0.1f);
  recipe.expert_scale = numbers.normal(size_t(experts));
  recipe.muted = numbers.some(size_t(experts), 5);
  recipe.forced = numbers.some(size_t(experts), 7);
}

TEST(Gate, EditsActAsInRoute) {
  for (Case c : native_routers()) {
    if (c.spec.experts < 8) continue;
    c.native = false;
    edit(c.recipe, c.spec.experts);
    expect_decisions(c);
    c.recipe.select_bias.clear(), c.recipe.k = 0;
    expect_decisions(c);
  }
}

// Parameters that take each branch of a scheme, beside the defaults.
std::vector<std::map<std::string, SchemeValue>> variants(const std::string& name) {
  std::vector<std::map<std::string, SchemeValue>> out{{}};
  const auto modes = [&](std::initializer_list<const char*> words) {
    for (const char* word : words) out.push_back({{"mode", std::string(word)}});
  };
  if (name == "top_k") modes({"raw", "sigmoid", "unit"}), out.push_back({{"k", 7.0}});
  if (name == "top_p")
    out.push_back({{"p", 0.9}, {"renorm", true}, {"k_min", 2.0}, {"k_max", 5.0}}), out.push_back({{"p", 1.0}});
  if (name == "dynmole")
    out.push_back({{"h", 0.3}}), out.push_back({{"entropy", std::string("renyi")}, {"q", 2.0}, {"p", 0.5}}),
        out.push_back({{"q", 1.0}, {"h", 0.7}});
  if (name == "adamoe")
    out.push_back({{"null_source", std::string("constant")}, {"null_logit", 1.5}, {"k", 6.0}}),
        out.push_back({{"nulls", 0.0}, {"k", 2.0}});
  if (name == "dense_to_sparse")
    out.push_back({{"tau", 0.3}, {"gumbel", true}, {"seed", 77.0}}), out.push_back({{"hard", true}}),
        out.push_back({{"schedule", std::string("exp")}, {"steps", 9.0}}),
        out.push_back({{"schedule", std::string("linear")}, {"steps", 9.0}});
  if (name == "activation_d2s")
    for (const char* act : {"tanh", "gelu", "none"}) out.push_back({{"activation", std::string(act)}, {"tau", 0.5}});
  if (name == "hash") out.push_back({{"k", 3.0}});
  if (name == "random")
    out.push_back({{"granularity", std::string("step")}, {"weights", std::string("share")}, {"seed", 5.0}}),
        out.push_back({{"granularity", std::string("sequence")}, {"weights", std::string("p")}});
  if (name == "expert_condenser") modes({"renorm"}), out.push_back({{"forced_count", 4.0}});
  if (name == "forced_slot") out.push_back({{"expert", 5.0}, {"k", 2.0}});
  if (name == "steer")
    out.push_back(
        {{"on", std::vector<int>{1, 3}}, {"off", std::vector<int>{0}}, {"eps", 0.5}, {"mode", std::string("raw")}});
  if (name == "sdm")
    out.push_back({{"q", 0.0}, {"if_out", std::string("all")}}),
        out.push_back({{"q", 1.0}, {"d", 0.3}, {"if_out", std::string("top_p")}}), modes({"raw"});
  if (name == "pre_gate") out.push_back({{"expert", 6.0}});
  if (name == "min_p") out.push_back({{"m", 0.05}, {"k_min", 3.0}, {"mode", std::string("raw")}});
  if (name == "ratio") out.push_back({{"beta", 0.9}, {"k", 6.0}});
  return out;
}

// A scheme with what it reads from a file, as far as the table holds it.
Scheme with_data(Scheme scheme, int experts, const std::string& name) {
  Numbers numbers(23);
  SchemeData data = scheme.data ? *scheme.data : scheme.file ? scheme.file->every : SchemeData();
  if (name == "stable_moe" || name == "hash") {
    data.columns = name == "hash" ? 2 : 1;
    for (int i = 0; i < kVocab * data.columns; ++i) data.table.push_back(ExpertId((i * 7 + 3) % experts));
  }
  if (name == "expert_choice") data.thresholds = std::vector<float>(size_t(experts), 0.05f), data.thresholds[1] = 0.4f;
  if (name == "replay") {
    data.columns = 3;
    for (int i = 0; i < kPosition + kTokens - 2; ++i) {  // the last tokens are not in the record
      data.tokens.push_back(
          i < kPosition ? 0 : (i - kPosition) * 3 % kVocab + (i == kPosition + 4));  // one is another token
      for (int slot = 0; slot < 3; ++slot) {
        const bool null = slot == 2 && i % 3 == 0;
        data.table.push_back(null                      ? ExpertId(experts)
                             : slot == 2 && i % 3 == 1 ? kNoExpert
                                                       : ExpertId((i * 5 + slot) % experts));
        data.weights.push_back(0.2f + 0.1f * float(slot));
        data.kinds.push_back(uint8_t(null ? SlotKind::kNull : slot == 1 ? SlotKind::kForced : SlotKind::kRouted));
      }
    }
  }
  scheme.data = std::make_shared<const SchemeData>(std::move(data));
  return scheme;
}

TEST(Gate, SchemesOfTheRegistryDecideAsRoute) {
  int held = 0;
  std::string left_out;
  for (const SchemeInfo& info : schemes()) {
    const std::string name = info.name;
    if (name == "native") continue;
    for (const auto& parameters : variants(name)) {
      Scheme scheme;
      if (const auto made = make_scheme({name, parameters}))
        scheme = *made;
      else if (name == "replay")
        scheme.choice.name = name, scheme.stages.selector = Selector::kReplay,
        scheme.stages.weights = WeightRule::kNative;
      else if (name == "stable_moe")
        scheme.choice.name = name, scheme.stages.selector = Selector::kTable, scheme.stages.k = 1,
        scheme.stages.weights = WeightRule::kSigmoid;
      else if (name == "recurrent")
        scheme.choice.name = name, scheme.stages.source = LogitSource::kRecurrent;
      else
        FAIL() << made.error().message();
      LayerRecipe probe;
      probe.scheme = scheme;
      if (!beyond_table(probe).empty()) {
        if (left_out.find(name) == left_out.npos) left_out += (left_out.empty() ? "" : " ") + name;
        continue;
      }
      ++held;
      for (const auto& [experts, k] : {std::pair(8, 2), {60, 4}, {128, 8}}) {
        Case c{describe(scheme.choice), spec_of(experts, k, ScoreFn::kSoftmaxAll, Renorm::kSum), {}, false};
        c.spec.has_logit_bias = experts == 60, c.spec.has_select_bias = experts == 128, c.spec.scale = 1.25f;
        c.recipe.scheme = with_data(scheme, experts, name);
        expect_decisions(c);
        edit(c.recipe, experts);
        expect_decisions(c);
      }
    }
  }
  EXPECT_GE(held, 50);
  EXPECT_EQ(left_out, "prototype recurrent similarity attention chain_of_experts union_of_experts");
}

TEST(Gate, DecisionsDoNotDependOnTheOrderOfThreads) {
  for (const uint64_t order : thread_orders()) {
    const WithOrder with(order);
    Case c{"order " + std::to_string(order), spec_of(64, 8, ScoreFn::kSoftmaxAll, Renorm::kSum), {}, false};
    edit(c.recipe, 64);
    expect_decisions(c);
    c.recipe.scheme = *make_scheme({"top_p", {{"p", 0.8}, {"renorm", true}}});
    expect_decisions(c);
    c.recipe.scheme = *make_scheme({"adamoe", {}});
    expect_decisions(c);
  }
}

}  // namespace
}  // namespace switchyard::cuda::testing

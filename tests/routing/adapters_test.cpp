// Routed adapters: the cases of specs/gating-checks.json through a file on disk, what PEFT folders and files of ours
// may say, and what is refused.
#include <cmath>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/linears.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/adapters.h"
#include "engine/routing/edit.h"
#include "engine/routing/frame.h"
#include "tests/routing/test_plan.h"
#include "tests/support/gating_checks.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

using CheckJson = nlohmann::json;
using Floats = std::vector<float>;
using Matrix = std::vector<Floats>;
using testing::HasSubstr;

constexpr const char* kModule = "model.layers.0.self_attn.q_proj";

// Layer 0 attention with q [out, in] and o [in, out], layer 1 a dense block of `in` -> 6 -> `in`.
ModelPlan plan_of(int in, int out) {
  ModelPlan plan;
  plan.hidden = in;
  plan.layers.resize(2);
  AttentionSpec attention;
  attention.q = {.name = std::string(kModule) + ".weight", .rows = out, .cols = in};
  attention.o = {.name = "model.layers.0.self_attn.o_proj.weight", .rows = in, .cols = out};
  attention.k = {.name = "model.layers.0.self_attn.kv.weight", .rows = out, .cols = in};
  attention.v = {
      .name = "model.layers.0.self_attn.kv.weight", .rows = out, .cols = in, .element_offset = int64_t(out) * in};
  plan.layers[0].sublayers.push_back({.op = attention});
  FfnSpec ffn;
  ffn.width = 6;
  ffn.weights.gate = {.name = "model.layers.1.mlp.gate_proj.weight", .rows = 6, .cols = in};
  ffn.weights.up = {.name = "model.layers.1.mlp.up_proj.weight", .rows = 6, .cols = in};
  ffn.weights.down = {.name = "model.layers.1.mlp.down_proj.weight", .rows = in, .cols = 6};
  plan.layers[1].sublayers.push_back({.op = ffn});
  return plan;
}

Floats flat(const CheckJson& json) {
  Floats out;
  for (const auto& item : json) {
    if (item.is_array()) {
      const Floats inner = flat(item);
      out.insert(out.end(), inner.begin(), inner.end());
    } else {
      out.push_back(item.get<float>());
    }
  }
  return out;
}

NamedTensor tensor(const std::string& name, std::vector<int64_t> shape, Floats values) {
  return {"lora." + std::string(kModule) + "." + name, std::move(shape), std::move(values)};
}
NamedTensor tensor(const std::string& name, const CheckJson& matrix) {
  return tensor(name, {int64_t(matrix.size()), int64_t(matrix[0].size())}, flat(matrix));
}

// Experts of one rank that do nothing, for cases that give no matrices.
void add_blank(std::vector<NamedTensor>& tensors, int experts, int in, int out, int rank = 1) {
  for (int e = 0; e < experts; ++e) {
    tensors.push_back(tensor(std::to_string(e) + ".A", {rank, in}, Floats(size_t(rank * in), 0.5f)));
    tensors.push_back(tensor(std::to_string(e) + ".B", {out, rank}, Floats(size_t(out * rank), 0.25f)));
  }
}

class Adapters : public testing::Test {
 protected:
  Result<std::shared_ptr<const AdapterSet>> read(const std::vector<NamedTensor>& tensors, const ModelPlan& plan,
                                                 const std::string& router,
                                                 std::map<std::string, AdapterValue> parameters = {},
                                                 std::vector<std::string> modules = {}) {
    put_file(folder_.path() / "a.safetensors", safetensors_of(tensors));
    return make_adapters({{(folder_.path() / "a.safetensors").string()}, router, std::move(parameters)}, {}, modules,
                         plan);
  }
  std::string refusal(const std::vector<NamedTensor>& tensors, const std::string& router = "fixed",
                      std::map<std::string, AdapterValue> parameters = {}) {
    const auto set = read(tensors, plan_of(4, 3), router, std::move(parameters));
    return set ? "accepted" : set.error().message();
  }
  TemporaryFolder folder_;
};

struct Decided {
  Floats weights, coefficients, scores;
  float base = 1;
  std::vector<int> ids() const {  // falling score, then lower id
    std::vector<int> out;
    for (size_t e = 0; e < weights.size(); ++e)
      if (weights[e] != 0) out.push_back(int(e));
    std::stable_sort(out.begin(), out.end(), [&](int a, int b) { return scores[size_t(a)] > scores[size_t(b)]; });
    return out;
  }
};

Floats low_of(const AdaptedLinear& linear, const Floats& x) {
  Floats low(size_t(linear.rank), 0.0f);
  for (size_t r = 0; r < low.size(); ++r)
    for (size_t i = 0; i < x.size(); ++i) low[r] += linear.a[r * x.size() + i] * x[i];
  return low;
}

Decided decide(const AdapterSet& set, const Floats& x, bool served = true) {
  const AdaptedLinear& linear = set.linears.begin()->second;
  Decided out{Floats(size_t(linear.choices())), Floats(size_t(linear.rank)), {}, 1};
  AdapterScratch scratch;
  const Floats low = low_of(linear, x);
  out.base = route_adapters(set.rule, linear, {x, low, served}, scratch, out.weights, out.coefficients);
  out.scores = scratch.scores;
  return out;
}

// What the adapters add to W x, and what multiplies it: in double from the decision.
Floats added(const AdapterSet& set, const Floats& x) {
  const AdaptedLinear& linear = set.linears.begin()->second;
  const Decided decided = decide(set, x);
  const Floats low = low_of(linear, x);
  Floats out;
  for (int o = 0; o < linear.out; ++o) {
    double sum = 0;
    for (size_t r = 0; r < low.size(); ++r)
      sum += double(linear.b[size_t(o) * low.size() + r]) * decided.coefficients[r] * low[r];
    out.push_back(float(sum));
  }
  return out;
}

void expect_near(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 2e-6 * std::max(1.0, std::abs(want))) << what;
}

// Numbers: gating-checks.json, schemes phatgoose, glider, arrow.
TEST_F(Adapters, ScoresAndWeightsOfPhatgooseGliderAndArrow) {
  int seen = 0;
  for (const std::string scheme : {"phatgoose", "glider", "arrow"})
    for (const CheckJson& check : test::gating_checks(scheme)) {
      const std::string id = check["id"];
      const CheckJson& in = check["inputs"];
      const Floats x = flat(in["x"]);
      const int d = int(x.size());
      std::vector<NamedTensor> tensors;
      std::map<std::string, AdapterValue> parameters{{"k", check["params"].value("k", 2.0)}};
      int out = 2;
      if (scheme == "arrow") {
        out = int(in["b"][0].size());
        for (size_t e = 0; e < in["a"].size(); ++e) {
          tensors.push_back(tensor(std::to_string(e) + ".A", in["a"][e]));
          tensors.push_back(tensor(std::to_string(e) + ".B", in["b"][e]));
        }
      } else {
        tensors.push_back(tensor("gate", in["gates"]));
        add_blank(tensors, int(in["gates"].size()), d, out);
      }
      if (scheme == "glider") {
        parameters["lambda"] = check["params"]["lambda"].get<double>();
        parameters["cosines"] = in["cosines"].get<std::vector<double>>();
      }
      const auto set = read(tensors, plan_of(d, out), scheme, parameters);
      ASSERT_TRUE(set) << id << ": " << set.error().message();
      const Decided got = decide(**set, x);
      const CheckJson& want = check["expected"];
      ASSERT_EQ(got.scores.size(), want["scores"].size()) << id;
      for (size_t e = 0; e < got.scores.size(); ++e) expect_near(got.scores[e], want["scores"][e], id + " score");
      const auto ids = want["ids"].get<std::vector<int>>();
      EXPECT_EQ(got.ids(), ids) << id;
      double sum = 0;
      for (size_t slot = 0; slot < ids.size(); ++slot) {
        expect_near(got.weights[size_t(ids[slot])], want["weights"][slot], id + " weight");
        sum += got.weights[size_t(ids[slot])];
      }
      EXPECT_NEAR(sum, 1, 1e-6) << id;
      EXPECT_EQ(got.base, 1) << id;
      ++seen;
    }
  EXPECT_EQ(seen, 15);
}

// Numbers: gating-checks.json, scheme poly: A [d_in, r], B [r, d_out], x from the left; here A^T and B^T.
TEST_F(Adapters, PolyMixesAAndBSeparately) {
  int seen = 0;
  for (const CheckJson& check : test::gating_checks("poly")) {
    const std::string id = check["id"];
    const CheckJson &in = check["inputs"], &want = check["expected"];
    const int skills = int(in["a"].size()), d = int(in["a"][0].size()), rank = int(in["b"][0].size()),
              out = int(in["b"][0][0].size()), heads = int(in["z"].size());
    std::vector<NamedTensor> tensors;
    Floats z;
    for (int s = 0; s < skills; ++s) {
      Floats a, b;
      for (int r = 0; r < rank; ++r)
        for (int i = 0; i < d; ++i) a.push_back(in["a"][s][i][r]);
      for (int o = 0; o < out; ++o)
        for (int r = 0; r < rank; ++r) b.push_back(in["b"][s][r][o]);
      tensors.push_back(tensor(std::to_string(s) + ".A", {rank, d}, a));
      tensors.push_back(tensor(std::to_string(s) + ".B", {out, rank}, b));
      for (int h = 0; h < heads; ++h) z.push_back(in["z"][h][s]);
    }
    Floats two_tasks(z.size(), 0.0f);  // task 0 is another
    two_tasks.insert(two_tasks.end(), z.begin(), z.end());
    tensors.push_back(tensor("z", {2, skills, heads}, two_tasks));
    const auto set = read(tensors, plan_of(d, out), "poly", {{"task", 1.0}});
    ASSERT_TRUE(set) << id << ": " << set.error().message();
    for (int i = 0; i < d; ++i) {
      Floats x(size_t(d), 0.0f);
      x[size_t(i)] = 1;
      const Floats row = added(**set, x);
      for (int o = 0; o < out; ++o) expect_near(row[size_t(o)], want["delta"][i][o], id);
    }
    const Decided got = decide(**set, Floats(size_t(d), 1.0f));
    for (int s = 0; s < skills; ++s) {
      double mean = 0;
      for (int h = 0; h < heads; ++h) mean += want["alpha"][h][s].get<double>() / heads;
      expect_near(got.weights[size_t(s)], mean, id + " alpha");
    }
    ++seen;
  }
  EXPECT_EQ(seen, 5);
}

// Numbers: gating-checks.json, scheme lora_mix (y = W x + scale sum w B A x; W x is left out here).
TEST_F(Adapters, FixedWeightsMixProducts) {
  int seen = 0;
  for (const CheckJson& check : test::gating_checks("lora_mix")) {
    const CheckJson& in = check["inputs"];
    std::vector<NamedTensor> tensors;
    for (size_t e = 0; e < in["a"].size(); ++e) {
      tensors.push_back(tensor(std::to_string(e) + ".A", in["a"][e]));
      tensors.push_back(tensor(std::to_string(e) + ".B", in["b"][e]));
    }
    const auto set = read(
        tensors, plan_of(int(in["x"].size()), int(in["w"].size())), "fixed",
        {{"weights", in["weights"].get<std::vector<double>>()}, {"scale", check["params"]["scale"].get<double>()}});
    ASSERT_TRUE(set) << set.error().message();
    const Floats x = flat(in["x"]), got = added(**set, x);
    for (size_t o = 0; o < got.size(); ++o) {
      double base = 0;
      for (size_t i = 0; i < x.size(); ++i) base += in["w"][o][i].get<double>() * in["x"][i].get<double>();
      EXPECT_NEAR(base + got[o], check["expected"]["y"][o].get<double>(), 1e-5) << check["id"];
    }
    ++seen;
  }
  EXPECT_EQ(seen, 3);
}

// Numbers: gating-checks.json, scheme dynmole; the gate's rows give the logits at x = (1, 0, ...).
TEST_F(Adapters, DynMoleRoutesByEntropy) {
  int seen = 0;
  for (const CheckJson& check : test::gating_checks("dynmole")) {
    const std::string id = check["id"];
    const Floats logits = flat(check["inputs"]["logits"]);
    const CheckJson& p = check["params"];
    std::vector<NamedTensor> tensors;
    Floats gate(logits.size() * 2, 0.0f);
    for (size_t e = 0; e < logits.size(); ++e) gate[2 * e] = logits[e];
    tensors.push_back(tensor("gate", {int64_t(logits.size()), 2}, gate));
    add_blank(tensors, int(logits.size()), 2, 2);
    std::map<std::string, AdapterValue> parameters;
    for (const char* name : {"p", "h", "q", "eps", "k_keep"})
      if (p.contains(name)) parameters[name] = p[name].get<double>();
    const auto set = read(tensors, plan_of(2, 2), "dynmole", parameters);
    ASSERT_TRUE(set) << id << ": " << set.error().message();
    const Decided got = decide(**set, {1, 0});
    const auto ids = check["expected"]["ids"].get<std::vector<int>>();
    EXPECT_EQ(got.ids(), ids) << id;
    for (size_t slot = 0; slot < ids.size(); ++slot)
      expect_near(got.weights[size_t(ids[slot])], check["expected"]["weights"][slot], id);
    ++seen;
  }
  EXPECT_EQ(seen, 9);
}

// Numbers: gating-checks.json, scheme flylora_select; A = 1 gives y = x, B = 1 gives what was kept of it.
TEST_F(Adapters, FlyLoraKeepsRanks) {
  int seen = 0;
  for (const CheckJson& check : test::gating_checks("flylora_select")) {
    const std::string id = check["id"];
    const Floats y = flat(check["inputs"]["y"]);
    const auto r = int64_t(y.size());
    Floats identity(y.size() * y.size(), 0.0f);
    for (size_t i = 0; i < y.size(); ++i) identity[i * y.size() + i] = 1;
    const std::vector<NamedTensor> tensors{tensor("0.A", {r, r}, identity), tensor("0.B", {r, r}, identity),
                                          tensor("bias", {r}, flat(check["inputs"]["d"]))};
    const auto set = read(tensors, plan_of(int(r), int(r)), "flylora",
                          {{"k", check["params"]["k"].get<double>()},
                           {"variant", check["params"]["variant"].get<std::string>()},
                           {"alpha", double(2 * r)}});
    ASSERT_TRUE(set) << id << ": " << set.error().message();
    Floats want(y.size(), 0.0f);
    const auto ids = check["expected"]["ids"].get<std::vector<int>>();
    for (size_t slot = 0; slot < ids.size(); ++slot)
      want[size_t(ids[slot])] = 2 * check["expected"]["weights"][slot].get<float>();  // alpha / r = 2
    const Floats got = added(**set, y);
    for (size_t i = 0; i < got.size(); ++i) expect_near(got[i], want[i], id);
    EXPECT_EQ(decide(**set, y).ids(), ids) << id;
    ++seen;
  }
  EXPECT_EQ(seen, 5);
}

// Numbers: gating-checks.json, scheme mogu. One input, so that B gives delta and the networks' last bias the share.
TEST_F(Adapters, MoguBlendsTwoAdaptersAndTheBase) {
  int seen = 0;
  for (const CheckJson& check : test::gating_checks("mogu")) {
    const std::string id = check["id"];
    const CheckJson& in = check["inputs"];
    const auto n = int64_t(in["base"].size());
    std::vector<NamedTensor> tensors{tensor("0.A", {1, 1}, {1}), tensor("0.B", {n, 1}, flat(in["delta0"])),
                                    tensor("1.A", {1, 1}, {1}), tensor("1.B", {n, 1}, flat(in["delta1"]))};
    const double s = check["params"]["s"];
    const auto fixed =
        read(tensors, plan_of(1, int(n)), "mogu",
             {{"scale", s}, {"share_0", in["alpha"].get<double>()}, {"share_1", in["beta"].get<double>()}});
    for (const char* which :
         {"alpha", "beta"}) {  // W2 (W1 W0 x + b1) + b2 = 2 (3 * 0.5 x - 1.25) + b2, and its sigmoid the share
      const double share = in[which], b2 = std::log(share / (1 - share)) - 2 * (3 * 0.5 - 1.25);
      const std::string name = which;
      tensors.push_back(tensor(name + ".w0", {1, 1}, {0.5f}));
      tensors.push_back(tensor(name + ".w1", {2, 1}, {3, 7}));
      tensors.push_back(tensor(name + ".b1", {2}, {-1.25f, 0}));
      tensors.push_back(tensor(name + ".w2", {1, 2}, {2, 0}));
      tensors.push_back(tensor(name + ".b2", {1}, {float(b2)}));
    }
    const auto nets = read(tensors, plan_of(1, int(n)), "mogu", {{"scale", s}});
    for (const auto* set : {&fixed, &nets}) {
      ASSERT_TRUE(*set) << id << ": " << set->error().message();
      const Floats got = added(***set, {1});
      const Decided decided = decide(***set, {1});
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_NEAR(decided.base * in["base"][i].get<double>() + got[i], check["expected"]["out"][i].get<double>(),
                    3e-6)
            << id;
      expect_near(decided.weights[0], in["alpha"], id);
      expect_near(decided.weights[1], in["beta"], id);
      const Decided plain = decide(***set, {1}, false);
      EXPECT_EQ(plain.base, 1);
      EXPECT_EQ(plain.coefficients, Floats(2, 0.0f));
    }
    ++seen;
  }
  EXPECT_EQ(seen, 4);
}

// Of 3 prompt tokens and 5 served ones: the last of the prompt makes the first, the fourth generated the fifth.
TEST_F(Adapters, MoguServesTheFirstGeneratedTokens) {
  AdapterRule rule{.router = AdapterRouter::kMogu, .tokens = 5};
  EXPECT_TRUE(serves(rule, 0, 3));
  EXPECT_TRUE(serves(rule, 2 + 4, 3));
  EXPECT_FALSE(serves(rule, 2 + 5, 3));
  EXPECT_TRUE(serves(rule, 100, 0)) << "without a known prompt";
  rule.tokens = 0;
  EXPECT_TRUE(serves(rule, 100, 3));
  rule = {.router = AdapterRouter::kArrow, .tokens = 5};
  EXPECT_TRUE(serves(rule, 100, 3));
}

TEST_F(Adapters, LoraMixerRoutesSoftlyOrByLabel) {
  std::vector<NamedTensor> tensors{tensor("gate", {3, 2}, {2, 0, 1, 0, 0.5f, 0})};
  add_blank(tensors, 3, 2, 2);
  // softmax(2, 1, 0.5) and its two largest over their sum, as in gating.md section 0 without the fourth logit.
  const double e0 = std::exp(2.0), e1 = std::exp(1.0), e2 = std::exp(0.5), all = e0 + e1 + e2;
  const Decided soft = decide(**read(tensors, plan_of(2, 2), "lora_mixer"), {1, 0});
  expect_near(soft.weights[0], e0 / (e0 + e1), "renorm");
  expect_near(soft.weights[1], e1 / (e0 + e1), "renorm");
  EXPECT_EQ(soft.weights[2], 0);
  const Decided raw = decide(**read(tensors, plan_of(2, 2), "lora_mixer", {{"renorm", false}, {"k", 3.0}}), {1, 0});
  expect_near(raw.weights[2], e2 / all, "raw");
  EXPECT_EQ(decide(**read(tensors, plan_of(2, 2), "lora_mixer", {{"label", 2.0}}), {1, 0}).weights, (Floats{0, 0, 1}));
}

// The direction against B A applied to many others, at every rank and with rows that repeat.
TEST_F(Adapters, TheAmplifiedDirectionIsTheLargest) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int rank : {1, 2, 5, 16}) {
    const int in = 23, out = 11;
    Floats a(size_t(rank * in)), b(size_t(out * rank));
    for (float& value : a) value = normal(random);
    for (float& value : b) value = normal(random);
    if (rank == 5) std::copy_n(a.begin(), in, a.begin() + in);
    const auto gain = [&](const Floats& x) {
      double total = 0, length = 0;
      for (const float value : x) length += double(value) * value;
      for (int o = 0; o < out; ++o) {
        double y = 0;
        for (int r = 0; r < rank; ++r)
          for (int i = 0; i < in; ++i) y += double(b[size_t(o * rank + r)]) * a[size_t(r * in + i)] * x[size_t(i)];
        total += y * y;
      }
      return std::sqrt(total / length);
    };
    const Floats best = amplified_direction(a, b, rank, in, out);
    EXPECT_NEAR(std::inner_product(best.begin(), best.end(), best.begin(), 0.0), 1, 1e-6);
    for (int turn = 0; turn < 200; ++turn) {  // near it and anywhere
      Floats other(best);
      for (float& value : other) value += normal(random) * (turn % 2 ? 1.0f : 0.05f);
      EXPECT_GE(gain(best) * (1 + 1e-9), gain(other)) << rank;
    }
  }
  EXPECT_EQ(amplified_direction(Floats{1, 2}, Floats{0, 0}, 1, 2, 2), (Floats{0, 0}));
}

TEST_F(Adapters, GliderTakesItsCosinesFromEmbeddings) {
  std::vector<NamedTensor> tensors{tensor("gate", {2, 2}, {1, 2, 2, 1}),
                                  {"lora.embeddings", {2, 2}, {3, 0, 1, 1}},
                                  {"lora.instruction", {2}, {2, 0}}};
  add_blank(tensors, 2, 2, 2);
  const auto set = read(tensors, plan_of(2, 2), "glider", {{"lambda", 10.0}});
  ASSERT_TRUE(set) << set.error().message();
  const Floats offsets = (*set)->linears.begin()->second.offsets;
  expect_near(offsets[0], 10, "parallel");
  expect_near(offsets[1], 10 / std::sqrt(2.0), "45 degrees");
}

// ---- Files ----

TEST_F(Adapters, RefusesWhatDoesNotFit) {
  std::vector<NamedTensor> sound;
  add_blank(sound, 2, 4, 3);
  EXPECT_EQ(refusal(sound), "accepted");
  const auto with = [&](NamedTensor more) {
    auto tensors = sound;
    tensors.push_back(std::move(more));
    return tensors;
  };
  EXPECT_THAT(refusal({sound[0]}), HasSubstr("has no B beside it"));
  EXPECT_THAT(refusal({sound[2], sound[3]}), HasSubstr("is of expert 1; expert 0 is missing"));
  EXPECT_THAT(refusal(with(tensor("2.A", {1, 5}, Floats(5)))), HasSubstr("has no B beside it"));
  auto wrong = sound;
  wrong[0] = tensor("0.A", {1, 5}, Floats(5));
  EXPECT_THAT(refusal(wrong), HasSubstr("has shape [1, 5], needed [any, 4]"));
  wrong = sound;
  wrong[1] = tensor("0.B", {3, 2}, Floats(6));
  EXPECT_THAT(refusal(wrong), HasSubstr("has shape [3, 2], needed [3, 1]"));
  wrong = sound;
  wrong[0].values[2] = std::nanf("");
  EXPECT_THAT(refusal(wrong), HasSubstr("has a value that is not finite"));
  EXPECT_THAT(refusal(with({"lora.model.layers.7.x.gate", {1, 4}, Floats(4)})),
              HasSubstr("names the module \"model.layers.7.x\""));
  EXPECT_THAT(refusal(with({"lora.model.layers.0.self_attn.kv.gate", {1, 4}, Floats(4)})),
              HasSubstr("a part of the tensor"));
  EXPECT_THAT(refusal(with({"model.weight", {1}, Floats(1)})), HasSubstr("is no tensor of an adapter file"));
  EXPECT_THAT(refusal(with(tensor("alpha.w0", {1, 4}, Floats(4)))), HasSubstr("not all of which are there"));
  EXPECT_THAT(refusal(sound, "phatgoose"), HasSubstr("needs a gate"));
  EXPECT_THAT(refusal(with(tensor("gate", {3, 4}, Floats(12))), "dynmole"),
              HasSubstr("the gate has 3 rows, there are 2 adapters"));
  EXPECT_THAT(refusal(sound, "poly"), HasSubstr("needs task logits"));
  EXPECT_EQ(refusal(sound, "poly", {{"uniform", true}}), "accepted");
  EXPECT_THAT(refusal(with(tensor("z", {1, 2, 3}, Floats(6))), "poly"),
              HasSubstr("3 heads do not divide its 4 inputs"));
  EXPECT_THAT(refusal(with(tensor("z", {1, 2, 1}, Floats(2))), "poly", {{"task", 1.0}}),
              HasSubstr("there is no task 1"));
  EXPECT_THAT(refusal(sound, "flylora"), HasSubstr("one adapter, the files have 2"));
  EXPECT_THAT(refusal(sound, "lora_mixer", {{"label", 2.0}}), HasSubstr("there is no adapter 2"));
  EXPECT_THAT(refusal(sound, "glider"), HasSubstr("needs the cosines"));
  EXPECT_THAT(refusal(sound, "fixed", {{"weights", std::vector<double>{1}}}), HasSubstr("1 weights for 2 adapters"));
  EXPECT_THAT(refusal(sound, "fixed", {{"k", 1.0}}), HasSubstr("has no parameter \"k\""));
  EXPECT_THAT(refusal(sound, "arrow", {{"k", 0.0}}), HasSubstr("k is 0, needs 1 to"));
  EXPECT_THAT(refusal(sound, "arrow", {{"k", 1.5}}), HasSubstr("needs an integer"));
  EXPECT_THAT(refusal(sound, "arrow", {{"k", true}}), HasSubstr("k needs a number"));
  EXPECT_THAT(refusal(sound, "flylora", {{"variant", std::string("x")}}), HasSubstr("needs one of absolute, signed"));
  EXPECT_THAT(refusal(sound, "tarot"), HasSubstr("there is no adapter router \"tarot\""));
  put_file(folder_.path() / "short.safetensors", safetensors_of(sound).substr(0, 200));
  EXPECT_FALSE(make_adapters({{(folder_.path() / "short.safetensors").string()}, "fixed", {}}, {}, {}, plan_of(4, 3)));
  EXPECT_EQ(make_adapters({{(folder_.path() / "none").string()}, "fixed", {}}, {}, {}, plan_of(4, 3)).error().code,
            ErrorCode::kNotFound);
}

class Peft : public Adapters {
 protected:
  static constexpr const char* kConfig =
      R"({"peft_type":"LORA","r":2,"lora_alpha":8,"target_modules":["q_proj","gate_proj"],"bias":"none"})";

  std::vector<NamedTensor> tensors_ = {
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", {2, 4}, Floats(8, 1.0f)},
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", {3, 2}, Floats(6, 1.0f)},
      {"base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight", {2, 4}, Floats(8, 1.0f)},
      {"base_model.model.model.layers.1.mlp.gate_proj.lora_B.weight", {6, 2}, Floats(12, 1.0f)}};

  // config: changes to kConfig.
  Result<std::shared_ptr<const AdapterSet>> folder(const CheckJson& config, const std::vector<NamedTensor>& tensors) {
    const auto path = folder_.path() / "chemistry";
    std::filesystem::create_directories(path);
    CheckJson whole = CheckJson::parse(kConfig);
    if (config.is_object()) whole.update(config);
    put_file(path / "adapter_config.json", whole.dump());
    put_file(path / "adapter_model.safetensors", safetensors_of(tensors));
    return make_adapters({{path.string()}, "fixed", {}}, {}, {}, plan_of(4, 3));
  }
  std::string refused(const CheckJson& config) {
    const auto set = folder(config, tensors_);
    return set ? "accepted" : set.error().message();
  }
  // scales of q_proj and gate_proj.
  std::vector<float> scales(const CheckJson& config) {
    const auto set = folder(config, tensors_);
    if (!set) return {};
    std::vector<float> out;
    for (const auto& [place, linear] : (*set)->linears) out.push_back(linear.scales[0]);
    return out;
  }
};

// Scales: lora_alpha / r, with rslora lora_alpha / sqrt(r), alpha_pattern by module (peft.tuners.lora).
TEST_F(Peft, ReadsRankAndScale) {
  const auto set = folder({}, tensors_);
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_EQ((*set)->linears.size(), 2u);
  const AdaptedLinear& q = (*set)->linears.begin()->second;
  EXPECT_EQ(q.names, std::vector<std::string>{"chemistry"});
  EXPECT_EQ(q.rank, 2);
  EXPECT_EQ(scales({}), (std::vector<float>{4, 4}));
  EXPECT_EQ(scales({{"lora_alpha", 0}}), (std::vector<float>{0, 0})) << "said, and not left open";
  EXPECT_EQ(scales({{"use_rslora", true}}), (std::vector<float>{float(8 / std::sqrt(2.0)), float(8 / std::sqrt(2.0))}));
  EXPECT_EQ(scales({{"alpha_pattern", {{"layers.1.mlp.gate_proj", 3}}}}), (std::vector<float>{4, 1.5f}));
  EXPECT_EQ(scales({{"alpha_pattern", {{".*\\.gate_proj", 3}, {"^model\\.layers\\.0\\.self_attn\\.q_proj", 6}}}}),
            (std::vector<float>{3, 1.5f}));
  EXPECT_EQ(scales({{"target_modules", "all-linear"}, {"modules_to_save", nullptr}, {"use_dora", false}}),
            (std::vector<float>{4, 4}));
  tensors_[2] = {tensors_[2].name, {1, 4}, Floats(4, 1.0f)};
  tensors_[3] = {tensors_[3].name, {6, 1}, Floats(6, 1.0f)};
  EXPECT_THAT(refused({}), HasSubstr("has 1 rows, r is 2"));
  EXPECT_EQ(scales({{"rank_pattern", {{"gate_proj", 1}}}}), (std::vector<float>{4, 8}));
}

TEST_F(Peft, RefusesWithTheReason) {
  EXPECT_EQ(refused({}), "accepted");
  EXPECT_THAT(refused({{"use_dora", true}}), HasSubstr("chemistry/adapter_config.json: DoRA"));
  EXPECT_THAT(refused({{"bias", "lora_only"}}), HasSubstr("biases"));
  EXPECT_THAT(refused({{"modules_to_save", {"lm_head"}}}), HasSubstr("modules_to_save"));
  EXPECT_THAT(refused({{"peft_type", "IA3"}}), HasSubstr("is of type \"IA3\""));
  EXPECT_THAT(refused({{"peft_type", nullptr}}), HasSubstr("peft_type"));
  EXPECT_THAT(refused({{"init_lora_weights", "pissa_niter_4"}}), HasSubstr("base weights were changed"));
  EXPECT_THAT(refused({{"layer_replication", {{0, 1}}}}), HasSubstr("layer_replication"));
  EXPECT_THAT(refused({{"fan_in_fan_out", true}}), HasSubstr("fan_in_fan_out"));
  EXPECT_THAT(refused({{"r", 0}}), HasSubstr("/r is 0"));
  EXPECT_THAT(refused({{"lora_alpha", "much"}}), HasSubstr("lora_alpha"));
  EXPECT_THAT(refused({{"alpha_pattern", {{"(a+)+$", 3}}}}), HasSubstr("regular expression"));
  EXPECT_THAT(refused({{"alpha_pattern", {{"q_proj", 3}, {"self_attn.q_proj", 4}}}}),
              HasSubstr("two entries of alpha_pattern"));
  EXPECT_THAT(refused({{"target_modules", {"k_proj"}}}),
              HasSubstr("target_modules of adapter_config.json does not name"));
  tensors_.push_back({"base_model.model.lm_head.modules_to_save.weight", {1}, {1}});
  EXPECT_THAT(refused({}), HasSubstr("is no lora_A or lora_B weight"));
  tensors_.back() = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.other.weight", {2, 4}, Floats(8)};
  EXPECT_THAT(refused({}), HasSubstr("two adapters in one file"));
  tensors_.back() = {"base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight", {2, 4}, Floats(8)};
  EXPECT_THAT(refused({}), HasSubstr("is no linear layer of this model"));
  std::filesystem::remove(folder_.path() / "chemistry" / "adapter_model.safetensors");
  put_file(folder_.path() / "chemistry" / "adapter_model.bin", "x");
  const auto pickle = make_adapters({{(folder_.path() / "chemistry").string()}, "fixed", {}}, {}, {}, plan_of(4, 3));
  ASSERT_FALSE(pickle);
  EXPECT_THAT(pickle.error().message(), HasSubstr("pickle"));
}

// ---- Edits ----

TEST_F(Adapters, AreEdits) {
  const ModelPlan plan = plan_of(4, 3);
  std::vector<NamedTensor> tensors;
  add_blank(tensors, 2, 4, 3);
  const std::string o = "lora.model.layers.0.self_attn.o_proj", gate = "lora.model.layers.1.mlp.gate_proj";
  tensors.push_back({o + ".0.A", {1, 3}, Floats(3)});
  tensors.push_back({o + ".0.B", {4, 1}, Floats(4)});
  tensors.push_back({gate + ".0.A", {1, 4}, Floats(4)});
  tensors.push_back({gate + ".0.B", {6, 1}, Floats(6)});
  put_file(folder_.path() / "a.safetensors", safetensors_of(tensors));
  const std::string file = (folder_.path() / "a.safetensors").string();
  const auto command = [&](CheckJson fields) {
    CheckJson entry{{"kind", "adapters"}, {"layer", "all"}, {"files", {file}}};
    if (fields.is_object()) entry.update(fields);
    const auto script = parse_script(CheckJson{{"edits", {entry}}}.dump(), plan);
    if (!script) ADD_FAILURE() << script.error().message();
    return script ? script->front() : EditCommand{SetAdapters{}, {}};
  };
  Recipe recipe;
  const EditCommand on_q =
      command({{"modules", {"q_proj"}}, {"adapter_router", "arrow"}, {"parameters", {{"k", 1}}}, {"at_token", 7}});
  EXPECT_EQ(on_q.at_token, 7u);
  EXPECT_EQ(describe(on_q.edit), "Adapters arrow of a.safetensors (k 1) on q_proj in all layers");
  apply(on_q.edit, plan, recipe);
  EXPECT_FALSE(recipe.is_identity());
  EXPECT_TRUE(recipe.routes_natively());
  EXPECT_TRUE(recipe.adapters_at(kPlaceQ));
  EXPECT_FALSE(recipe.adapters_at(kPlaceO));
  const Recipe first = recipe;

  const EditCommand everywhere = command({});
  const std::vector<Edit> back = invert(everywhere.edit, plan, recipe);
  apply(everywhere.edit, plan, recipe);
  EXPECT_TRUE(recipe.adapters_at(kPlaceO));
  EXPECT_TRUE(recipe.adapters_at(int(kAttentionPlaces) + kPlaceFfnGate));
  EXPECT_FALSE(recipe.adapters_at(int(kAttentionPlaces) + kPlaceFfnUp));

  Recipe rebuilt;
  for (const Edit& edit : edits_of(recipe, plan)) {
    const auto again = parse_script(to_json_script({{edit, {}}}), plan);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->front().edit, edit);
    apply(again->front().edit, plan, rebuilt);
  }
  EXPECT_EQ(rebuilt.adapters, recipe.adapters);

  for (const Edit& edit : back) apply(edit, plan, recipe);
  EXPECT_EQ(recipe.adapters, first.adapters);
  const EditCommand off = command({{"files", CheckJson::array()}});
  EXPECT_EQ(describe(off.edit), "Take the adapters away in all layers");
  apply(off.edit, plan, recipe);
  EXPECT_TRUE(recipe.is_identity());
  EXPECT_TRUE(recipe.adapters.empty());

  const auto problem = [&](CheckJson fields) {
    CheckJson entry{{"kind", "adapters"}, {"layer", "all"}, {"files", {file}}};
    entry.update(fields);
    const auto script = parse_script(CheckJson{{"edits", {entry}}}.dump(), plan);
    return script ? "accepted" : script.error().message();
  };
  EXPECT_THAT(problem({{"modules", {"k_proj"}}}), HasSubstr("no adapter for these layers and modules"));
  EXPECT_THAT(problem({{"layer", 9}, {"files", CheckJson::array()}}), HasSubstr("there is no layer 9"));
  EXPECT_THAT(problem({{"files", CheckJson::array()}, {"adapter_router", "arrow"}}),
              HasSubstr("without files there is no router"));
  EXPECT_THAT(problem({{"files", CheckJson::array()}, {"modules", {"x"}}}), HasSubstr("self_attn.q_proj"));
  EXPECT_THAT(problem({{"expert", 1}}), HasSubstr("has no field"));
  ModelPlan other = plan_of(5, 3);
  EXPECT_THAT(validate(on_q.edit, other).error().message(),
              HasSubstr("an adapter is for 4 inputs and 3 outputs, the layer has 5 and 3"));
}

// ---- Rows of frames ----

TEST_F(Adapters, HaveRowsBehindTheRouterOfTheirLayer) {
  const ModelPlan plan = test::small_plan();  // layer 0 dense; q_proj [3, 4] and k_proj [2, 4] in each of four
  std::vector<NamedTensor> tensors;
  for (int layer = 0; layer < 4; ++layer)
    for (const auto& [module, out] : {std::pair{"q_proj", 3}, {"k_proj", 2}})
      for (int e = 0; e < 3; ++e) {
        const std::string start = "lora.model.layers." + std::to_string(layer) + ".self_attn." + module + "." + std::to_string(e);
        tensors.push_back({start + ".A", {1, 4}, {1, 2, 3, float(e)}});
        tensors.push_back({start + ".B", {out, 1}, Floats(size_t(out), 1)});
      }
  put_file(folder_.path() / "a.safetensors", safetensors_of(tensors));
  const auto recipe_of = [&](const std::string& router, std::vector<std::string> modules) {
    const auto set = make_adapters({{(folder_.path() / "a.safetensors").string()}, router, {}}, {}, modules, plan);
    EXPECT_TRUE(set) << set.error().message();
    Recipe recipe;
    apply(SetAdapters{{}, modules, {*set}}, plan, recipe);
    return recipe;
  };
  using testing::ElementsAre;
  Recipe recipe = recipe_of("arrow", {});
  EXPECT_THAT(decision_rows(plan, recipe),
              ElementsAre(DecisionRow{0, 1, "layer 1"}, DecisionRow{3, 1, "layer 1 · q_proj adapter"}, DecisionRow{6, 1, "layer 1 · k_proj adapter"},
                          DecisionRow{1, 2, "layer 2"}, DecisionRow{4, 2, "layer 2 · q_proj adapter"}, DecisionRow{7, 2, "layer 2 · k_proj adapter"},
                          DecisionRow{2, 3, "layer 3"}, DecisionRow{5, 3, "layer 3 · q_proj adapter"}, DecisionRow{8, 3, "layer 3 · k_proj adapter"}));
  EXPECT_TRUE(chooses_experts(plan, 1, &recipe));
  EXPECT_FALSE(chooses_experts(plan, 4, &recipe));
  EXPECT_EQ(decision_name(plan, 4, nullptr), "layer 2 · decision 2") << "what it was is not known";

  apply(SetScheme{{{2}}, *make_scheme({"chain_of_experts", {}})}, plan, recipe);
  const std::vector<DecisionRow> rows = decision_rows(plan, recipe);
  EXPECT_THAT(std::vector(rows.begin() + 3, rows.begin() + 7),
              ElementsAre(DecisionRow{1, 2, "layer 2"}, DecisionRow{4, 2, "layer 2 · pass 2"}, DecisionRow{7, 2, "layer 2 · q_proj adapter"}, DecisionRow{10, 2, "layer 2 · k_proj adapter"}));
  EXPECT_TRUE(chooses_experts(plan, 4, &recipe));
  EXPECT_FALSE(chooses_experts(plan, 7, &recipe));
  EXPECT_EQ(make_frame(plan, recipe, CaptureLevel::kLogits).rows(), 12);

  EXPECT_EQ(decision_rows(plan, recipe_of("fixed", {})).size(), 3u) << "nothing is decided";

  // Weights 1/4 of adapter 0 and 3/4 of adapter 2; ln sum exp of (0, -1, ln 3) = ln(1 + 1/e + 3).
  RoutingFrame frame = make_frame(plan, recipe, CaptureLevel::kLogits);
  record_adapters(frame, 7, Floats{0.25f, 0, 0.75f}, Floats{0, -1, std::log(3.0f)});
  EXPECT_TRUE(frame.passed(7));
  EXPECT_FALSE(frame.passed(10));
  EXPECT_THAT(frame.used_ids(7), ElementsAre(2, 0));
  EXPECT_THAT(frame.weights(7).first(2), ElementsAre(0.75f, 0.25f));
  EXPECT_NEAR(frame.layer(7).stats.lse, std::log(4 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(frame.layer(7).stats.margin, 1, 1e-6);
  record_adapters(frame, 10, Floats{0, 0, 0}, Floats{0, 0, 0});
  EXPECT_FALSE(frame.passed(10)) << "no adapter served the token";
}

}  // namespace
}  // namespace switchyard

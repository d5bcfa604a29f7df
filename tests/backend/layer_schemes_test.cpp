// What changes the arithmetic of a layer, on every backend: chains of experts, slices of experts, experts of other kinds.
// The numbers are those of the naive executor in double precision, whose layer each test writes from the words of
// specs/gating.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <set>

#include "engine/routing/edit.h"
#include "tests/backend/harness.h"
#include "tests/backend/naive.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard::testing {
namespace {

using Vector = std::vector<double>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kModel = "qwen3_moe";  // layers 0 and 2 have 8 experts of 8 units, top-3 of a softmax, renormalised
constexpr int kHidden = 32, kExperts = 8, kK = 3, kRouters = 2;
constexpr double kLimit = 2e-4;
const std::vector<TokenId> kTokens{3, 17, 5, 44, 9, 31, 2, 60, 12};

Recipe recipe_of(const std::vector<Edit>& edits) {
  const ModelPlan& plan = checkpoint(kModel).plan;
  Recipe recipe;
  recipe.epoch = 1;
  for (const Edit& edit : edits) {
    const auto fits = validate(edit, plan, recipe);
    EXPECT_TRUE(fits) << (fits ? "" : fits.error().message());
    apply(edit, plan, recipe);
  }
  return recipe;
}
Recipe recipe_of(const std::string& scheme, std::map<std::string, SchemeValue> parameters, LayerSet layers = {}) {
  const auto made = make_scheme({scheme, std::move(parameters)});
  EXPECT_TRUE(made) << (made ? "" : made.error().message());
  return recipe_of({SetScheme{std::move(layers), made ? *made : Scheme{}}});
}

// Numbers for a file: normal, of standard deviation `size`.
std::vector<float> noise(size_t count, float size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> out(count);
  for (float& v : out) v = normal(random);
  return out;
}

Vector times(const std::vector<float>& matrix, size_t rows, const Vector& x) {
  Vector out(rows, 0.0);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < x.size(); ++c) out[r] += double(matrix[r * x.size() + c]) * x[c];
  return out;
}
Vector plus(Vector a, const Vector& b, double by = 1) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += by * b[i];
  return a;
}

// Top-k of the softmax, renormalised: the model's own rule.
std::vector<std::pair<int, double>> top_k(const Vector& z, int k) {
  std::vector<int> order(z.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return z[size_t(a)] > z[size_t(b)]; });
  std::vector<std::pair<int, double>> out;
  double sum = 0;
  for (int i = 0; i < k; ++i) sum += std::exp(z[size_t(order[size_t(i)])] - z[size_t(order[0])]);
  for (int i = 0; i < k; ++i) out.push_back({order[size_t(i)], std::exp(z[size_t(order[size_t(i)])] - z[size_t(order[0])]) / sum});
  return out;
}

// Experts that a token takes in a row of a frame, in order of weight.
std::vector<int> ids_of(const RoutingFrame& frame, int row) {
  const auto ids = frame.used_ids(row);
  return {ids.begin(), ids.end()};
}

class LayerSchemes : public ::testing::TestWithParam<std::string> {
 protected:
  Output run(const Recipe& recipe, std::span<const TokenId> tokens = kTokens) const {
    return Sequence(kModel, GetParam(), recipe).feed(tokens);
  }
  void expect_naive(const Output& got, const NaiveLayer& layer) const {
    const Vector want = naive_logits(checkpoint(kModel).plan, **WeightStore::open(checkpoint(kModel)), kTokens, layer);
    ASSERT_EQ(got.logits.size(), want.size());
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(got.logits[i] - want[i]));
    EXPECT_LE(worst, kLimit);
  }
};

TEST_P(LayerSchemes, AChainOfOnePassIsTheBaseLayerBitForBit) {
  const Output base = run({});
  for (const char* residual : {"sum", "outer"})
    EXPECT_TRUE(identical(base, run(recipe_of("chain_of_experts", {{"iterations", 1.0}, {"residual", std::string(residual)}})))) << residual;
}

TEST_P(LayerSchemes, AChainRoutesWhatTheEarlierPassMade) {
  for (const std::string residual : {"sum", "inner", "outer"})
    for (const bool gates : {false, true}) {
      SCOPED_TRACE(residual + (gates ? " with gates" : ""));
      constexpr int kPasses = 3;
      const TemporaryFolder folder;
      const std::string file = (folder.path() / "gates.safetensors").string();
      std::map<int, std::vector<std::vector<float>>> gate;  // by router
      std::vector<NamedTensor> tensors;
      for (int router = 0; router < kRouters; ++router)
        for (int pass = 0; pass < kPasses; ++pass) {
          gate[router].push_back(noise(kExperts * kHidden, 0.3f, unsigned(100 + router * 10 + pass)));
          if (router == 1 && pass == 0) gate[router].back().clear();  // the model's own
          else tensors.push_back({"layers." + std::to_string(2 * router) + ".coe." + std::to_string(pass) + ".weight", {kExperts, kHidden}, gate[router].back()});
        }
      put_file(file, safetensors_of(tensors));
      std::map<std::string, SchemeValue> parameters{{"iterations", double(kPasses)}, {"k", 2.0}, {"residual", residual}};
      if (gates) parameters["file"] = file;
      const Output got = run(recipe_of("chain_of_experts", parameters));

      std::vector<std::vector<std::vector<int>>> ids(kRouters);  // [router] of [token * pass]
      expect_naive(got, [&](const NaiveBlock& block, const Vector& h, const Vector& x0) {
        Vector x = x0, sum = Vector(x0.size(), 0.0);
        for (int pass = 0; pass < kPasses; ++pass) {
          const auto& own = gate[block.row][size_t(pass)];
          Vector y = block.rest(x);
          std::vector<int> chosen;
          for (const auto& [e, w] : top_k(gates && !own.empty() ? times(own, kExperts, x) : block.logits(x), 2)) {
            y = plus(std::move(y), block.expert(size_t(e), x), w);
            chosen.push_back(e);
          }
          ids[size_t(block.row)].push_back(chosen);
          x = residual == "outer" ? y : plus(x, y);
          sum = plus(sum, y);
        }
        return residual == "inner" ? x : plus(h, residual == "sum" ? sum : x);
      });
      int other = 0;
      for (size_t token = 0; token < kTokens.size(); ++token) {
        const RoutingFrame& frame = got.frames[token];
        ASSERT_EQ(frame.header().passes, kPasses);
        for (int router = 0; router < kRouters; ++router)
          for (int pass = 0; pass < kPasses; ++pass) {
            EXPECT_EQ(ids_of(frame, pass * kRouters + router), ids[size_t(router)][token * kPasses + size_t(pass)]);
            other += pass > 0 && ids_of(frame, pass * kRouters + router) != ids_of(frame, router);
          }
      }
      EXPECT_GT(other, 0) << "a test in which no pass chooses other experts proves little";
    }
}

// k / C experts in each pass where nothing else is said.
TEST_P(LayerSchemes, AChainSharesTheExpertsOutToThePasses) {
  const Output got = run(recipe_of("chain_of_experts", {}, {{2}}));
  for (const RoutingFrame& frame : got.frames) {
    EXPECT_EQ(frame.layer(0).k_used, kK);
    EXPECT_EQ(frame.layer(1).k_used, 1);
    EXPECT_EQ(frame.layer(kRouters + 1).k_used, 1);
    EXPECT_FALSE(frame.passed(kRouters)) << "layer 0 is as it was";
    EXPECT_TRUE(frame.passed(kRouters + 1));
  }
  EXPECT_THAT(decision_rows(checkpoint(kModel).plan, recipe_of("chain_of_experts", {}, {{2}})),
              ElementsAre(DecisionRow{0, 0, "layer 0"}, DecisionRow{1, 2, "layer 2"}, DecisionRow{3, 2, "layer 2 · pass 2"}));
}

TEST_P(LayerSchemes, AChainDoesNotSeeTheChunk) {
  const Recipe recipe = recipe_of("chain_of_experts", {{"iterations", 3.0}});
  const Output all = run(recipe);
  Sequence parts(kModel, GetParam(), recipe);
  for (size_t token = 0; token < kTokens.size(); ++token) {
    const Output one = parts.feed(std::span(kTokens).subspan(token, 1));
    EXPECT_LE(largest_difference(one.logits, std::span(all.logits).subspan(token * one.logits.size(), one.logits.size())), 1e-4);
    for (int row = 0; row < one.frames[0].rows(); ++row) EXPECT_EQ(ids_of(one.frames[0], row), ids_of(all.frames[token], row));
  }
}

TEST(LayerSchemeFiles, RefuseGatesThatDoNotFit) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "gates.safetensors").string();
  const auto refused = [&](const std::vector<NamedTensor>& tensors, double passes = 2) -> std::string {
    put_file(file, safetensors_of(tensors));
    const auto scheme = make_scheme({"chain_of_experts", {{"iterations", passes}, {"file", file}}});
    if (!scheme) return scheme.error().message();
    const auto fits = validate(SetScheme{{{2}}, *scheme}, checkpoint(kModel).plan);
    return fits ? "" : fits.error().message();
  };
  const auto gate = [](const std::string& name, int64_t rows, int64_t columns) {
    return NamedTensor{name, {rows, columns}, std::vector<float>(size_t(rows * columns), 0.5f)};
  };
  EXPECT_EQ(refused({gate("layers.2.coe.0.weight", 8, 32), gate("layers.2.coe.1.weight", 8, 32)}), "");
  EXPECT_EQ(refused({gate("layers.2.coe.1.weight", 8, 32)}), "");
  EXPECT_THAT(refused({gate("layers.2.coe.1.weight", 7, 32)}), HasSubstr("gate of pass 1 is [7, 32], needed [8, 32]"));
  EXPECT_THAT(refused({gate("layers.2.coe.1.weight", 8, 16)}), HasSubstr("is [8, 16], needed [8, 32]"));
  EXPECT_THAT(refused({gate("layers.2.coe.1.weight", 8, 32)}, 3), HasSubstr("gates for the passes 0 to 1, needed are 0 to 2"));
  EXPECT_THAT(refused({gate("layers.0.coe.1.weight", 8, 32)}), HasSubstr("no gates for this layer"));
  EXPECT_THAT(refused({gate("layers.2.coe.16.weight", 8, 32)}), HasSubstr("passes are 0 to 15"));
  EXPECT_THAT(refused({gate("layers.2.coe.x.weight", 8, 32)}), HasSubstr("no tensor that a gating scheme reads"));
}

// ---- Union-of-Experts: slices of the hidden units. ----

TEST_P(LayerSchemes, AllSlicesOnAreTheWholeExpertsBitForBit) {
  const Output base = run({});
  for (const std::string selection : {"token", "sequence"})
    for (const double slices : {2.0, 4.0, 8.0}) {
      const Output got = run(recipe_of("union_of_experts", {{"slices", slices}, {"on", slices}, {"selection", selection}}));
      EXPECT_EQ(got.logits, base.logits) << selection << " " << slices;
      for (const RoutingFrame& frame : got.frames) EXPECT_EQ(frame.used_ids(kRouters).size(), size_t(slices));
    }
}

// The sum of the slices one at a time is the whole, up to the order of the additions.
TEST_P(LayerSchemes, SlicesSwitchUnitsByTheirGate) {
  constexpr int kSlices = 4, kWidth = 8;
  for (const std::string selection : {"data", "token", "sequence"})
    for (const bool with_file : {false, true}) {
      SCOPED_TRACE(selection + (with_file ? " by a file" : " by the oracle"));
      const TemporaryFolder folder;
      const std::string file = (folder.path() / "slices.safetensors").string();
      std::vector<std::vector<float>> gate, bias;
      std::vector<NamedTensor> tensors;
      for (int router = 0; router < kRouters; ++router) {
        gate.push_back(noise(kSlices * kHidden, 0.3f, unsigned(200 + router)));
        bias.push_back(noise(kSlices, 0.3f, unsigned(300 + router)));
        const std::string stem = "layers." + std::to_string(2 * router) + ".uoe.";
        tensors.push_back({stem + "weight", {kSlices, kHidden}, gate.back()});
        tensors.push_back({stem + "bias", {kSlices}, bias.back()});
      }
      put_file(file, safetensors_of(tensors));
      std::map<std::string, SchemeValue> parameters{{"slices", double(kSlices)}, {"on", 2.0}, {"selection", selection}, {"cap", 1.25}};
      if (with_file) parameters["file"] = file;
      const Output got = run(recipe_of("union_of_experts", parameters));

      // Token by token the naive layer needs the decision over all tokens: it takes the recorded one and checks, once
      // all gates are known, that the rule gives it.
      std::vector<std::vector<Vector>> z(kRouters);  // [router][token]
      expect_naive(got, [&](const NaiveBlock& block, const Vector& h, const Vector& x) {
        const size_t token = z[size_t(block.row)].size();
        const std::vector<int> on = ids_of(got.frames[token], kRouters + block.row);
        Vector y = block.rest(x), norms(kSlices, 0.0);
        for (const auto& [e, w] : top_k(block.logits(x), kK)) {
          Vector units = block.units(size_t(e), x);
          for (int s = 0; s < kSlices; ++s) {
            double square = 0;
            for (int i = s * kWidth / kSlices; i < (s + 1) * kWidth / kSlices; ++i) {
              square += units[size_t(i)] * units[size_t(i)];
              if (std::find(on.begin(), on.end(), s) == on.end()) units[size_t(i)] = 0;
            }
            norms[size_t(s)] += w * std::sqrt(square);
          }
          y = plus(std::move(y), block.down(size_t(e), units), w);
        }
        Vector logits(kSlices);
        if (with_file) {
          logits = times(gate[size_t(block.row)], kSlices, x);
          for (int s = 0; s < kSlices; ++s) logits[size_t(s)] += bias[size_t(block.row)][size_t(s)];
        } else {
          for (int s = 0; s < kSlices; ++s) logits[size_t(s)] = std::log(norms[size_t(s)]);
        }
        z[size_t(block.row)].push_back(logits);
        return plus(h, y);
      });

      for (int router = 0; router < kRouters; ++router) {
        const size_t tokens = kTokens.size();
        std::vector<std::vector<uint8_t>> want(tokens, std::vector<uint8_t>(kSlices, 0));
        std::vector<Vector> g(tokens);
        Vector mean(kSlices, 0.0);
        for (size_t t = 0; t < tokens; ++t) {
          const Vector& logits = z[size_t(router)][t];
          double sum = 0;
          for (const double v : logits) sum += std::exp(v);
          for (int s = 0; s < kSlices; ++s) g[t].push_back(std::exp(logits[size_t(s)]) / sum), mean[size_t(s)] += logits[size_t(s)];
          for (const auto& [s, w] : top_k(logits, 2)) want[t][size_t(s)] = 1;
          for (int s = 0; s < kSlices; ++s) EXPECT_NEAR(got.frames[t].logits(kRouters + router)[size_t(s)], logits[size_t(s)], 1e-3);
        }
        if (selection == "sequence")
          for (auto& marks : want) {
            std::fill(marks.begin(), marks.end(), uint8_t(0));
            for (const auto& [s, w] : top_k(mean, 2)) marks[size_t(s)] = 1;
          }
        if (selection == "data") {
          const auto masks = want;
          for (int s = 0; s < kSlices; ++s) {
            double sum = 0;
            Vector column;
            for (size_t t = 0; t < tokens; ++t) sum += masks[t][size_t(s)] ? g[t][size_t(s)] : 0;
            for (size_t t = 0; t < tokens; ++t)
              column.push_back(masks[t][size_t(s)] ? g[t][size_t(s)] / (sum + 1e-6) * std::floor(1.25 * double(tokens)) : 0);
            for (auto& marks : want) marks[size_t(s)] = 0;
            for (const auto& [t, w] : top_k(column, int(tokens / 2))) want[size_t(t)][size_t(s)] = 1;
          }
        }
        for (size_t t = 0; t < tokens; ++t) {
          std::vector<int> on;
          for (int s = 0; s < kSlices; ++s)
            if (want[t][size_t(s)]) on.push_back(s);
          EXPECT_EQ(ids_of(got.frames[t], kRouters + router), on) << "router " << router << " token " << t;
        }
      }
    }
}

// What the first tokens decided holds for the sequence, until it is cut back to before them.
TEST_P(LayerSchemes, ASequenceKeepsItsSlices) {
  const Recipe recipe = recipe_of("union_of_experts", {{"selection", std::string("sequence")}}, {{2}});
  Sequence sequence(kModel, GetParam(), recipe);
  const int row = kRouters + 1;
  const std::vector<int> first = ids_of(sequence.feed(std::span(kTokens).first(3)).frames[0], row);
  std::set<std::vector<int>> alone;
  for (size_t token = 3; token < kTokens.size(); ++token) {
    const Output one = sequence.feed(std::span(kTokens).subspan(token, 1));
    EXPECT_EQ(ids_of(one.frames[0], row), first);
    const auto z = one.frames[0].logits(row);
    Vector logits(z.begin(), z.begin() + 4);
    std::vector<int> own;
    for (const auto& [s, w] : top_k(logits, 2)) own.push_back(s);
    std::sort(own.begin(), own.end());
    alone.insert(own);
  }
  EXPECT_GT(alone.size(), 1u) << "tokens that would all choose the same prove little";
  sequence.cache().truncate(2);  // behind the first decision
  EXPECT_EQ(ids_of(sequence.feed(std::span(kTokens).subspan(5, 1)).frames[0], row), first);
  sequence.cache().truncate(0);
  const Output again = sequence.feed(std::span(kTokens).subspan(4, 2));
  EXPECT_EQ(ids_of(again.frames[1], row), ids_of(again.frames[0], row));
  Sequence fresh(kModel, GetParam(), recipe);
  EXPECT_EQ(ids_of(fresh.feed(std::span(kTokens).subspan(4, 2)).frames[0], row), ids_of(again.frames[0], row));
}

TEST(LayerSchemeFiles, RefuseSlicesThatDoNotFit) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "slices.safetensors").string();
  const auto refused = [&](std::map<std::string, SchemeValue> parameters, const std::vector<NamedTensor>& tensors = {}) -> std::string {
    if (!tensors.empty()) put_file(file, safetensors_of(tensors)), parameters["file"] = file;
    const auto scheme = make_scheme({"union_of_experts", std::move(parameters)});
    if (!scheme) return scheme.error().message();
    const auto fits = validate(SetScheme{{{2}}, *scheme}, checkpoint(kModel).plan);
    return fits ? "" : fits.error().message();
  };
  const auto tensor = [](const std::string& name, std::vector<int64_t> shape) {
    size_t size = 1;
    for (const int64_t n : shape) size *= size_t(n);
    return NamedTensor{name, std::move(shape), std::vector<float>(size, 0.5f)};
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({}, {tensor("layers.2.uoe.weight", {4, 32})}), "");
  EXPECT_THAT(refused({{"slices", 3.0}}), HasSubstr("8 hidden units, which do not make 3 equal slices"));
  EXPECT_THAT(refused({{"slices", 16.0}}), HasSubstr("room for the router's 8 experts"));
  EXPECT_THAT(refused({{"on", 5.0}}), HasSubstr("5 slices on of 4"));
  EXPECT_THAT(refused({}, {tensor("layers.2.uoe.weight", {2, 32})}), HasSubstr("[2, 32], needed [4, 32]"));
  EXPECT_THAT(refused({}, {tensor("layers.2.uoe.weight", {4, 32}), tensor("layers.2.uoe.bias", {3})}), HasSubstr("3 numbers, needed 4"));
  EXPECT_THAT(refused({}, {tensor("layers.0.uoe.weight", {4, 32})}), HasSubstr("no gate of slices for this layer"));
}

// ---- Experts of other kinds. ----

struct KindCase {
  std::string to;
  std::vector<NamedTensor> tensors;  // names without layers.L.experts.E.
  std::function<Vector(const NaiveBlock& block, size_t expert, const Vector& x)> naive;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<KindCase> kind_cases() {
  constexpr int kUnits = 6;
  const auto tensor = [](const std::string& name, std::vector<int64_t> shape, unsigned seed) {
    size_t size = 1;
    for (const int64_t n : shape) size *= size_t(n);
    return NamedTensor{name, std::move(shape), noise(size, 0.4f, seed)};
  };
  const auto find = [](const std::vector<NamedTensor>& tensors, const std::string& name) {
    for (const NamedTensor& t : tensors)
      if (t.name == name) return t.values;
    return std::vector<float>();
  };
  const auto with = [](Vector y, const std::vector<float>& bias) {
    for (size_t i = 0; i < bias.size(); ++i) y[i] += bias[i];
    return y;
  };
  std::vector<KindCase> out;
  out.push_back({"identity", {}, [](const NaiveBlock&, size_t, const Vector& x) { return x; }});
  out.push_back({"null", {}, [](const NaiveBlock&, size_t, const Vector& x) { return Vector(x.size(), 0.0); }});
  {
    const auto constant = tensor("constant", {kHidden}, 1);
    out.push_back({"constant", {constant}, [=](const NaiveBlock&, size_t, const Vector&) { return Vector(constant.values.begin(), constant.values.end()); }});
  }
  {
    const std::vector<NamedTensor> t{tensor("up.weight", {kUnits, kHidden}, 2), tensor("up.bias", {kUnits}, 3),
                                     tensor("down.weight", {kHidden, kUnits}, 4), tensor("down.bias", {kHidden}, 5)};
    out.push_back({"gelu_mlp", t, [=](const NaiveBlock&, size_t, const Vector& x) {
                     Vector u = with(times(t[0].values, kUnits, x), t[1].values);
                     for (double& v : u) v = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
                     return with(times(t[2].values, kHidden, u), t[3].values);
                   }});
  }
  const std::vector<NamedTensor> glu{tensor("gate.weight", {kUnits, kHidden}, 6), tensor("up.weight", {kUnits, kHidden}, 7),
                                     tensor("down.weight", {kHidden, kUnits}, 8)};
  const auto swiglu = [=](const Vector& x) {
    const Vector a = times(glu[0].values, kUnits, x);
    Vector u = times(glu[1].values, kUnits, x);
    for (int i = 0; i < kUnits; ++i) u[size_t(i)] *= a[size_t(i)] * sigmoid(a[size_t(i)]);
    return times(glu[2].values, kHidden, u);
  };
  out.push_back({"swiglu", glu, [=](const NaiveBlock&, size_t, const Vector& x) { return swiglu(x); }});
  {
    std::vector<NamedTensor> t;
    unsigned seed = 20;
    for (const std::string part : {"ir", "iz", "in"}) t.push_back(tensor("gru." + part + ".weight", {kUnits, kHidden}, seed++));
    for (const std::string part : {"hr", "hz", "hn"}) t.push_back(tensor("gru." + part + ".weight", {kUnits, kUnits}, seed++));
    for (const std::string part : {"ir", "iz", "in", "hr", "hz", "hn"}) t.push_back(tensor("gru." + part + ".bias", {kUnits}, seed++));
    t.push_back(tensor("down.weight", {kHidden, kUnits}, seed++));
    t.push_back(tensor("down.bias", {kHidden}, seed++));
    out.push_back({"gru", t, [=](const NaiveBlock&, size_t, const Vector& x) {
                     const auto side = [&](const std::string& part, const Vector& in) { return with(times(find(t, "gru." + part + ".weight"), kUnits, in), find(t, "gru." + part + ".bias")); };
                     const Vector state(kUnits, 0.0), ir = side("ir", x), iz = side("iz", x), in = side("in", x), hr = side("hr", state), hz = side("hz", state), hn = side("hn", state);
                     Vector h(kUnits);
                     for (size_t i = 0; i < h.size(); ++i) {
                       const double r = sigmoid(ir[i] + hr[i]), zeta = sigmoid(iz[i] + hz[i]), n = std::tanh(in[i] + r * hn[i]);
                       h[i] = (1 - zeta) * n + zeta * state[i];
                     }
                     return with(times(find(t, "down.weight"), kHidden, h), find(t, "down.bias"));
                   }});
  }
  {
    std::vector<NamedTensor> t = glu;
    t.push_back(tensor("gn.weight", {1, kHidden}, 40));
    t.push_back(tensor("gn.bias", {1}, 41));
    out.push_back({"local", t, [=](const NaiveBlock& block, size_t expert, const Vector& x) {
                     return sigmoid(times(t[3].values, 1, x)[0] + t[4].values[0]) > 0.5 ? swiglu(x) : block.expert(expert, x);
                   }});
  }
  return out;
}

std::string write_kind(const TemporaryFolder& folder, const KindCase& kind, const std::vector<int>& layers, const std::vector<int>& experts) {
  if (kind.tensors.empty()) return {};
  std::vector<NamedTensor> all;
  for (const int layer : layers)
    for (const int expert : experts)
      for (NamedTensor t : kind.tensors) {
        t.name = "layers." + std::to_string(layer) + ".experts." + std::to_string(expert) + "." + t.name;
        all.push_back(std::move(t));
      }
  const std::string file = (folder.path() / (kind.to + ".safetensors")).string();
  put_file(file, safetensors_of(all));
  return file;
}

Edit parse_one(const std::string& entry) {
  const auto script = parse_script(R"({"schema":1,"edits":[)" + entry + "]}", checkpoint(kModel).plan);
  EXPECT_TRUE(script) << (script ? "" : script.error().message());
  return script ? (*script)[0].edit : Edit();
}

Edit kind_edit(const TemporaryFolder& folder, const KindCase& kind, const std::string& layer, const std::vector<int>& experts) {
  const std::string file = write_kind(folder, kind, {0, 2}, experts);
  return parse_one(R"({"kind":"expert_kind","layer":)" + layer + R"(,"expert":)" + nlohmann::json(experts).dump() + R"(,"to":")" + kind.to + '"' +
                   (file.empty() ? "" : ",\"file\":\"" + file + '"') + "}");
}

TEST_P(LayerSchemes, ExpertsOfOtherKindsGiveTheirOwnOutput) {
  for (const KindCase& kind : kind_cases()) {
    SCOPED_TRACE(kind.to);
    const TemporaryFolder folder;
    const Recipe recipe = recipe_of({kind_edit(folder, kind, "\"all\"", {1, 2, 5}), ExpertScale{{}, {2, 3}, 0.5f}});
    const Output got = run(recipe);
    int here = 0;
    expect_naive(got, [&](const NaiveBlock& block, const Vector& h, const Vector& x) {
      Vector y = block.rest(x);
      for (const auto& [e, w] : top_k(block.logits(x), kK)) {
        const bool other = e == 1 || e == 2 || e == 5;
        here += other;
        y = plus(std::move(y), other ? kind.naive(block, size_t(e), x) : block.expert(size_t(e), x), w * (e == 2 || e == 3 ? 0.5 : 1.0));
      }
      return plus(h, y);
    });
    EXPECT_GT(here, 5);
    // One token after the other the same bits or, of LibTorch, nearly.
    Sequence parts(kModel, GetParam(), recipe);
    for (size_t token = 0; token < kTokens.size(); ++token) {
      const Output one = parts.feed(std::span(kTokens).subspan(token, 1));
      const auto all = std::span(got.logits).subspan(token * one.logits.size(), one.logits.size());
      if (GetParam() == "cpu") EXPECT_TRUE(std::ranges::equal(one.logits, all)) << "token " << token;
      else EXPECT_LE(largest_difference(one.logits, all), 1e-4);
    }
    // The edit undone is the model as it was.
    const ModelPlan& plan = checkpoint(kModel).plan;
    Recipe back;
    const Edit edit = kind_edit(folder, kind, "2", {1, 5});
    const std::vector<Edit> undo = invert(edit, plan, back);
    apply(edit, plan, back);
    std::vector<EditCommand> script;
    for (Edit& e : edits_of(back, plan)) script.push_back({e, {}});
    const auto again = parse_script(to_json_script(script), plan);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(*again, script);
    for (const Edit& e : undo) apply(e, plan, back);
    EXPECT_TRUE(back.is_identity());
  }
}

struct SeenUnits final : UnitTap {
  struct Seen {
    int row, expert, token;
    std::vector<float> units;
  };
  std::vector<Seen> seen;
  void take(int row, ExpertId expert, int token, std::span<const float> units) override {
    seen.push_back({row, int(expert), token, {units.begin(), units.end()}});
  }
};

// Whoever asks sees what the down projection takes, of every expert that runs, masks in force.
TEST_P(LayerSchemes, UnitsAreShownAsTheyRun) {
  const ModelPlan& plan = checkpoint(kModel).plan;
  Backend& on = backend(kModel, GetParam());
  const auto cache = on.new_cache(64);
  const Recipe recipe = recipe_of({NeuronMask{{{2}}, {0, 1, 2, 3, 4, 5, 6, 7}, {2, 5}}});
  SeenUnits tap;
  ASSERT_TRUE(on.forward({.tokens = kTokens, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kNone, .units = &tap}));
  ASSERT_EQ(tap.seen.size(), kTokens.size() * kRouters * kK);
  std::vector<int> next(kRouters, 0);
  naive_logits(plan, **WeightStore::open(checkpoint(kModel)), kTokens, [&](const NaiveBlock& block, const Vector& h, const Vector& x) {
    const int token = next[size_t(block.row)]++;
    Vector y = block.rest(x);
    for (const auto& [e, w] : top_k(block.logits(x), kK)) {
      Vector units = block.units(size_t(e), x);
      if (block.row == 1) units[2] = units[5] = 0;
      const auto found = std::find_if(tap.seen.begin(), tap.seen.end(), [&, e = e](const auto& s) { return s.row == block.row && s.expert == e && s.token == token; });
      EXPECT_NE(found, tap.seen.end()) << "row " << block.row << " token " << token << " expert " << e;
      if (found != tap.seen.end()) {
        for (size_t i = 0; i < units.size(); ++i) EXPECT_NEAR(found->units[i], units[i], 1e-4);
      }
      y = plus(std::move(y), block.down(size_t(e), units), w);
    }
    return plus(h, y);
  });
}

// A chain of one identity of half the input: 1.5 x, then 2.25 x (the worked example of chains); and the second pass reads it.
TEST_P(LayerSchemes, AChainOfIdentitiesIsTheWorkedExample) {
  const auto chain = make_scheme({"chain_of_experts", {{"k", 1.0}, {"mode", std::string("unit")}}});
  const auto one = make_scheme({"top_k", {{"k", 1.0}, {"mode", std::string("unit")}}});
  ASSERT_TRUE(chain && one);
  std::vector<ExpertId> all(kExperts);
  std::iota(all.begin(), all.end(), ExpertId(0));
  const auto recipe = [&](const Scheme& scheme, float scale) {
    return recipe_of({SetExpertKind{{{2}}, all, ExpertKind::kIdentity}, ExpertScale{{{2}}, all, scale}, SetScheme{{{2}}, scheme}});
  };
  const Output twice = run(recipe(*chain, 0.5f)), once = run(recipe(*one, 1.25f));  // h + (2.25 - 1) x
  EXPECT_LE(largest_difference(twice.logits, once.logits), 1e-4);
  for (const RoutingFrame& frame : twice.frames)
    for (int e = 0; e < kExperts; ++e) EXPECT_NEAR(frame.logits(kRouters + 1)[size_t(e)], 1.5f * frame.logits(1)[size_t(e)], 1e-4);
}

TEST(ExpertKinds, AreRefusedWhereTheyDoNotFit) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "kinds.safetensors").string();
  const auto tensor = [](const std::string& name, std::vector<int64_t> shape) {
    size_t size = 1;
    for (const int64_t n : shape) size *= size_t(n);
    return NamedTensor{name, std::move(shape), std::vector<float>(size, 0.5f)};
  };
  const auto refused = [&](const std::string& to, const std::vector<NamedTensor>& tensors) -> std::string {
    std::vector<NamedTensor> all;
    for (NamedTensor t : tensors) t.name = "layers.2.experts.3." + t.name, all.push_back(std::move(t));
    put_file(file, safetensors_of(all));
    const auto script = parse_script(R"({"edits":[{"kind":"expert_kind","layer":2,"expert":3,"to":")" + to + R"(","file":")" + file + "\"}]}",
                                     checkpoint(kModel).plan);
    return script ? "" : script.error().message();
  };
  const NamedTensor up = tensor("up.weight", {6, 32}), down = tensor("down.weight", {32, 6});
  EXPECT_EQ(refused("gelu_mlp", {up, down}), "");
  EXPECT_THAT(refused("gelu_mlp", {up}), HasSubstr("layer 2, expert 3: the file has no tensor down.weight"));
  EXPECT_THAT(refused("gelu_mlp", {up, tensor("down.weight", {32, 7})}), HasSubstr("down.weight is [32, 7], needed [32, 6]"));
  EXPECT_THAT(refused("gelu_mlp", {tensor("up.weight", {6, 31}), down}), HasSubstr("up.weight is [6, 31], needed [units, 32]"));
  EXPECT_THAT(refused("gelu_mlp", {up, down, tensor("gate.weight", {6, 32})}), HasSubstr("gelu_mlp has no tensor gate.weight"));
  EXPECT_THAT(refused("swiglu", {up, down}), HasSubstr("no tensor gate.weight"));
  EXPECT_THAT(refused("local", {up, down}), HasSubstr("no tensor gn.weight"));
  EXPECT_THAT(refused("constant", {tensor("constant", {31})}), HasSubstr("constant is [31], needed [32]"));
  EXPECT_THAT(refused("gru", {up, down}), HasSubstr("no tensor gru.ir.weight"));
  EXPECT_THAT(refused("gelu_mlp", {tensor("side.weight", {6, 32})}), HasSubstr("is no tensor of an expert"));
  EXPECT_THAT(refused("identity", {up}), HasSubstr("identity has no field"));
  EXPECT_THAT(refused("lstm", {up}), HasSubstr("one of own, swiglu"));
  const auto with = [&](const std::vector<Edit>& before, const Edit& edit) -> std::string {
    Recipe recipe;
    for (const Edit& e : before) apply(e, checkpoint(kModel).plan, recipe);
    const auto fits = validate(edit, checkpoint(kModel).plan, recipe);
    return fits ? "" : fits.error().message();
  };
  const Edit kind = SetExpertKind{{{2}}, {3}, ExpertKind::kIdentity};
  EXPECT_EQ(with({}, kind), "");
  EXPECT_THAT(with({kind}, Swap{{{2}}, {3, 4}}), HasSubstr("expert 3 of layer 2 is of kind identity"));
  EXPECT_THAT(with({kind}, Merge{{{2}}, {4, 3}, {}}), HasSubstr("expert 3 of layer 2"));
  EXPECT_THAT(with({kind}, NeuronMask{{{2}}, {3}, {1}}), HasSubstr("neuron_mask is for the model's own"));
  EXPECT_THAT(with({NeuronMask{{{2}}, {3}, {1}}}, kind), HasSubstr("of kind identity"));
  EXPECT_THAT(with({kind}, SetScheme{{{2}}, *make_scheme({"union_of_experts", {}})}), HasSubstr("does not cut"));
}

INSTANTIATE_TEST_SUITE_P(Backends, LayerSchemes, ::testing::ValuesIn(backend_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing

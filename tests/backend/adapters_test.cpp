// Adapters on every backend. Where the routers' decisions are known beforehand, against checkpoints into whose matrices
// this test added the product (c W + sum s w B A); where they are not, one backend against the other. Against
// transformers and peft: check_adapters.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "engine/model/linears.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/edit.h"
#include "tests/backend/disk_model.h"
#include "tests/backend/harness.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard::testing {
namespace {

const std::vector<TokenId> kTokens{3, 17, 5, 44, 9, 31, 2, 60, 12, 7, 28, 51};
constexpr int kRank = 3;

// Two adapters on every linear that can have some, as a file on disk.
class AdapterFile {
 public:
  explicit AdapterFile(const std::string& model) : linears_(linears_of(checkpoint(model).plan)) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto noise = [&](int64_t count, float scale) {
      std::vector<float> out(static_cast<size_t>(count));
      for (float& value : out) value = normal(random) * scale;
      return out;
    };
    for (const Linear& linear : linears_) {
      if (linear.module.empty() || !linear.refused.empty()) continue;
      for (int e = 0; e < 2; ++e) {
        add(linear, std::to_string(e) + ".A", {kRank, linear.cols},
            noise(kRank * linear.cols, 1 / std::sqrt(float(linear.cols))));
        add(linear, std::to_string(e) + ".B", {linear.rows, kRank}, noise(linear.rows * kRank, 0.1f));
      }
    }
  }

  void add(const Linear& linear, const std::string& part, std::vector<int64_t> shape, std::vector<float> values) {
    tensors_["lora." + linear.module + "." + part] = {{}, std::move(shape), std::move(values)};
  }
  // what(linear) for each linear that has adapters.
  template <class What>
  void each(const What& what) {
    for (const Linear& linear : linears_)
      if (tensors_.contains("lora." + linear.module + ".0.A")) what(linear);
  }
  void drop(const std::string& name) { tensors_.erase(name); }

  // The recipe on all linears, or on those of these modules.
  Recipe recipe(const ModelPlan& plan, const std::string& router, std::map<std::string, AdapterValue> parameters = {},
                const std::vector<std::string>& modules = {}) {
    std::vector<NamedTensor> list;
    for (auto [name, tensor] : tensors_) list.push_back(tensor), list.back().name = name;
    put_file(folder_.path() / "adapters.safetensors", safetensors_of(list));
    const auto set = make_adapters(
        {{(folder_.path() / "adapters.safetensors").string()}, router, std::move(parameters)}, {}, modules, plan);
    if (!set) throw std::runtime_error(set.error().message());
    Recipe recipe;
    apply(SetAdapters{{}, modules, {*set}}, plan, recipe);
    return recipe;
  }

  // The checkpoint with c W + s sum w_e B_e A_e in the place of every W.
  void save_merged(const std::string& golden, double c, double s, const std::vector<double>& w,
                   const std::filesystem::path& folder) {
    DiskModel disk(golden);
    each([&](const Linear& linear) {
      std::vector<float>& weight = disk.tensors.at(linear.module + ".weight").values;
      for (int64_t o = 0; o < linear.rows; ++o)
        for (int64_t i = 0; i < linear.cols; ++i) {
          double sum = c * weight[size_t(o * linear.cols + i)];
          for (size_t e = 0; e < w.size(); ++e) {
            const auto &a = tensors_.at("lora." + linear.module + "." + std::to_string(e) + ".A").values,
                       &b = tensors_.at("lora." + linear.module + "." + std::to_string(e) + ".B").values;
            for (int r = 0; r < kRank; ++r)
              sum += s * w[e] * b[size_t(o * kRank + r)] * a[size_t(r) * size_t(linear.cols) + size_t(i)];
          }
          weight[size_t(o * linear.cols + i)] = static_cast<float>(sum);
        }
    });
    disk.save(folder);
  }

 private:
  std::vector<Linear> linears_;
  std::map<std::string, NamedTensor> tensors_;
  TemporaryFolder folder_;
};

// The recipe is one of the router, that of the golden's plan.
Output run_folder(const std::filesystem::path& folder, const std::string& name, const Recipe& recipe = {}) {
  const auto opened = open_checkpoint(folder.string());
  if (!opened) throw std::runtime_error(opened.error().message());
  const auto weights = WeightStore::open(*opened);
  if (!weights) throw std::runtime_error(weights.error().message());
  auto made = make_backend(name, *opened, *weights, {.threads = 2});
  if (!made) throw std::runtime_error(made.error().message());
  const auto cache = (*made)->new_cache(64);
  Output out{.logits = std::vector<float>(kTokens.size() * size_t(opened->plan.vocab)),
             .frames = blank_frames(opened->plan, recipe, kTokens.size())};
  const auto done = (*made)->forward({.tokens = kTokens,
                                      .cache = cache.get(),
                                      .recipe = &recipe,
                                      .rows = LogitRows::kAll,
                                      .logits = out.logits,
                                      .frames = out.frames});
  if (!done) throw std::runtime_error(done.error().message());
  return out;
}

Output run(const std::string& model, const std::string& name, const Recipe& recipe) {
  return Sequence(model, name, recipe).feed(kTokens);
}

class AdaptedModels : public ::testing::TestWithParam<std::string> {};

// mixtral: attention and experts; qwen2_moe: biases, shared expert with its gate; deepseek_v2: latent attention, a
// dense layer; olmoe: norms behind the projections.
const std::vector<std::string> kModels{"mixtral", "qwen2_moe", "deepseek_v2", "olmoe"};

TEST_P(AdaptedModels, KnownDecisionsEqualAMergedCheckpoint) {
  const double share_0 = 1 / (1 + std::exp(-0.3)), share_1 = 1 / (1 + std::exp(0.9));
  for (const std::string& model : kModels) {
    const ModelPlan& plan = checkpoint(model).plan;
    struct Case {
      std::string router;
      std::map<std::string, AdapterValue> parameters;
      double c, s;
      std::vector<double> w;
    };
    const std::vector<Case> cases{
        {"fixed",
         {{"weights", std::vector<double>{0.7, -0.4}}, {"scale", 1.5}, {"alpha", 6.0}},
         1,
         1.5 * 6 / kRank,
         {0.7, -0.4}},
        {"dynmole", {}, 1, 1, {0.5, 0.5}},  // a gate of zeros: broadcast to all
        {"lora_mixer", {{"label", 1.0}}, 1, 1, {0, 1}},
        {"mogu", {}, share_0 + share_1, 1, {share_0, share_1}},  // networks of zeros but for the last bias
        {"flylora", {{"k", double(kRank)}, {"alpha", 2.0}}, 1, 2.0 / kRank, {1}},  // all ranks
    };
    for (const Case& c : cases) {
      SCOPED_TRACE(model + " " + c.router);
      AdapterFile file(model);
      file.each([&](const Linear& linear) {
        file.add(linear, "gate", {2, linear.cols}, std::vector<float>(size_t(2 * linear.cols)));
        for (const auto& [net, bias] : {std::pair{"alpha", 0.3f}, std::pair{"beta", -0.9f}}) {
          const std::string name = net;
          file.add(linear, name + ".w0", {1, linear.cols}, std::vector<float>(size_t(linear.cols)));
          file.add(linear, name + ".w1", {1, 1}, {1});
          file.add(linear, name + ".b1", {1}, {0});
          file.add(linear, name + ".w2", {1, 1}, {1});
          file.add(linear, name + ".b2", {1}, {bias});
        }
        if (c.router == "flylora")
          file.drop("lora." + linear.module + ".1.A"), file.drop("lora." + linear.module + ".1.B");
      });
      const TemporaryFolder folder;
      file.save_merged(model, c.c, c.s, c.w, folder.path());
      const Output want = run_folder(folder.path(), GetParam()),
                   got = run(model, GetParam(), file.recipe(plan, c.router, c.parameters));
      const Difference d = compare(want, got);
      EXPECT_LE(d.logits, 2e-4) << d;
      EXPECT_EQ(d.sets_differing, 0) << d;
      EXPECT_GT(largest_difference(want.logits, run(model, GetParam(), {}).logits), 0.01);
    }
  }
}

// Adapters under a router's scheme and beside experts of other kinds: the merged checkpoint under the same recipe. Every
// decision is logged once: on an expert's matrices for each token whose own expert ran, in each pass.
TEST_P(AdaptedModels, StandUnderPassesSlicesAndBesideOtherKinds) {
  const std::string model = "qwen3_moe";  // layers 0 and 2 have 8 experts
  const ModelPlan& plan = checkpoint(model).plan;
  const TemporaryFolder folder;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.4f);
  std::vector<NamedTensor> tensors;
  for (const int expert : {1, 4})
    for (const auto& [part, rows, cols] : {std::tuple{"gate", 6, plan.hidden}, {"up", 6, plan.hidden}, {"down", plan.hidden, 6}, {"gn", 1, plan.hidden}}) {
      if (expert == 4 && part == std::string("gn")) continue;
      NamedTensor tensor{"layers.2.experts." + std::to_string(expert) + "." + part + ".weight", {rows, cols}, std::vector<float>(size_t(rows) * size_t(cols))};
      for (float& value : tensor.values) value = normal(random);
      tensors.push_back(std::move(tensor));
    }
  put_file(folder.path() / "experts.safetensors", safetensors_of(tensors));
  const std::string kinds = R"({"kind":"expert_kind","layer":2,"expert":)", file = R"(","file":")" + (folder.path() / "experts.safetensors").string() + R"("})";
  const std::vector<std::string> scripts{
      R"({"kind":"scheme","layer":"all","name":"chain_of_experts","parameters":{"iterations":2,"k":2}})",
      R"({"kind":"scheme","layer":"all","name":"union_of_experts","parameters":{"selection":"token"}})",
      kinds + R"(1,"to":"local)" + file + "," + kinds + R"(2,"to":"identity"},)" + kinds + R"(3,"to":"null"},)" + kinds + R"(4,"to":"swiglu)" + file};
  AdapterFile adapters(model);
  const std::vector<double> weights{0.7, -0.4};
  std::filesystem::create_directory(folder.path() / "merged");
  adapters.save_merged(model, 1, 1, weights, folder.path() / "merged");
  for (const std::string& entries : scripts) {
    SCOPED_TRACE(entries);
    const auto script = parse_script(R"({"edits":[)" + entries + "]}", plan);
    ASSERT_TRUE(script) << script.error().message();
    Recipe recipe;
    for (const EditCommand& command : *script) apply(command.edit, plan, recipe);
    const Output want = run_folder(folder.path() / "merged", GetParam(), recipe), without = run(model, GetParam(), recipe);
    recipe.adapters = adapters.recipe(plan, "fixed", {{"weights", weights}}).adapters;

    Output got{.logits = std::vector<float>(kTokens.size() * size_t(plan.vocab)), .frames = blank_frames(plan, recipe, kTokens.size())};
    AdapterLog log;
    const auto cache = backend(model, GetParam()).new_cache(64);
    const auto done = backend(model, GetParam())
                          .forward({.tokens = kTokens, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kAll, .logits = got.logits, .adapter_log = &log, .frames = got.frames});
    ASSERT_TRUE(done) << done.error().message();
    const Difference d = compare(want, got);
    EXPECT_LE(d.logits, 2e-4) << d;
    EXPECT_EQ(d.sets_differing, 0) << d;
    EXPECT_GT(largest_difference(want.logits, without.logits), 0.01);

    const std::vector<Linear> linears = linears_of(plan);
    const auto logged = [&](const std::string& module) {
      const auto place = std::find_if(linears.begin(), linears.end(), [&](const Linear& l) { return l.module == "model.layers.2." + module; }) - linears.begin();
      const auto found = log.linears.find(int(place));
      return found == log.linears.end() ? 0 : found->second.tokens;
    };
    EXPECT_EQ(logged("self_attn.q_proj"), kTokens.size());
    const bool other_kinds = recipe.layer(1)->scheme.choice.name.empty();
    const int passes = runs_in_passes(recipe.layer(1)->scheme) ? 2 : 1;
    uint64_t own = 0;
    for (int expert = 0; expert < 8; ++expert) {
      uint64_t chosen = 0;
      for (const RoutingFrame& frame : got.frames)
        for (int pass = 0; pass < passes; ++pass)
          for (const ExpertId id : frame.used_ids(1 + 2 * pass)) chosen += id == expert;
      const std::string start = "mlp.experts." + std::to_string(expert);
      EXPECT_EQ(logged(start + ".gate_proj"), logged(start + ".up_proj"));
      EXPECT_EQ(logged(start + ".gate_proj"), logged(start + ".down_proj"));
      if (other_kinds && expert == 1) {
        EXPECT_LT(logged(start + ".up_proj"), chosen) << "a test in which the local expert never runs proves little";
        EXPECT_GT(logged(start + ".up_proj"), 0u);
      } else {
        EXPECT_EQ(logged(start + ".up_proj"), other_kinds && expert >= 2 && expert <= 4 ? 0 : chosen) << expert;
      }
      own += logged(start + ".up_proj");
    }
    EXPECT_GT(own, kTokens.size());
  }
}

// Routers that look at the input.
const std::vector<std::pair<std::string, std::map<std::string, AdapterValue>>> kRouted{
    {"phatgoose", {{"k", 1.0}, {"alpha", 3.0}}},
    {"arrow", {{"k", 1.0}}},
    {"glider", {{"k", 1.0}, {"lambda", 1.0}, {"cosines", std::vector<double>{0.2, 0.1}}}},
    {"dynmole", {{"h", 0.97}, {"k_keep", 1.0}}},
    {"lora_mixer", {{"k", 1.0}}},
    {"mogu", {}}};

Recipe routed(const std::string& model, size_t which) {
  AdapterFile file(model);
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  file.each([&](const Linear& linear) {
    const auto noise = [&](int64_t count, double scale) {
      std::vector<float> out(static_cast<size_t>(count));
      for (float& value : out) value = normal(random) * float(scale);
      return out;
    };
    file.add(linear, "gate", {2, linear.cols}, noise(2 * linear.cols, 1));
    for (const std::string net : {"alpha", "beta"}) {
      file.add(linear, net + ".w0", {4, linear.cols}, noise(4 * linear.cols, 1 / std::sqrt(double(linear.cols))));
      file.add(linear, net + ".w1", {5, 4}, noise(20, 0.5));
      file.add(linear, net + ".b1", {5}, noise(5, 0.5));
      file.add(linear, net + ".w2", {1, 5}, noise(5, 0.5));
      file.add(linear, net + ".b2", {1}, noise(1, 0.5));
    }
  });
  return file.recipe(checkpoint(model).plan, kRouted[which].first, kRouted[which].second);
}

// What routers that look at the token decide stands in rows of the frames, behind the router of the layer: what the log adds up.
TEST_P(AdaptedModels, DecisionsAreRowsOfTheFrames) {
  for (const std::string model : {"mixtral", "deepseek_v2"}) {
    const ModelPlan& plan = checkpoint(model).plan;
    const std::vector<Linear> linears = linears_of(plan);
    for (size_t which = 0; which < kRouted.size(); ++which) {
      SCOPED_TRACE(model + " " + kRouted[which].first);
      const Recipe recipe = routed(model, which);
      Output got{.logits = std::vector<float>(kTokens.size() * size_t(plan.vocab)), .frames = blank_frames(plan, recipe, kTokens.size())};
      AdapterLog log;
      const auto cache = backend(model, GetParam()).new_cache(64);
      const auto done = backend(model, GetParam())
                            .forward({.tokens = kTokens, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kAll, .logits = got.logits, .adapter_log = &log, .frames = got.frames});
      ASSERT_TRUE(done) << done.error().message();
      const std::vector<AdapterRow> rows = adapter_rows(plan, recipe);
      std::set<std::string> modules;
      for (const AdapterRow& row : rows) {
        const Linear& linear = linears[size_t(row.place)];
        modules.insert(linear.local);
        EXPECT_EQ(decision_name(plan, row.row, &recipe), linear_name(plan, linear) + " adapter");
        EXPECT_EQ(linear.layer, plan.moe_layers[size_t(row.row) % plan.moe_layers.size()]);
        std::vector<double> sums(2);
        for (const RoutingFrame& frame : got.frames) {
          ASSERT_TRUE(frame.passed(row.row));
          const auto ids = frame.used_ids(row.row);
          for (size_t slot = 0; slot < ids.size(); ++slot) sums[ids[slot]] += frame.weights(row.row)[slot];
        }
        const AdapterTally& tally = log.linears.at(row.place);
        EXPECT_EQ(tally.tokens, kTokens.size());
        for (size_t e = 0; e < 2; ++e) EXPECT_NEAR(sums[e], tally.sums[e], 1e-5);
        const auto last = got.frames.back().used_ids(row.row);
        for (size_t slot = 0; slot < last.size(); ++slot)
          EXPECT_EQ(got.frames.back().weights(row.row)[slot], tally.last[last[slot]]);
      }
      if (model == std::string("mixtral"))
        EXPECT_THAT(modules, ::testing::UnorderedElementsAre("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"));
      else
        EXPECT_THAT(modules, ::testing::IsSupersetOf({"self_attn.o_proj", "mlp.shared_experts.down_proj"})) << "a shared expert sees every token";
    }
  }
}

// One token at a time, and the whole prompt: the same bits on cpu; and no trace is left once the adapters are gone.
TEST_P(AdaptedModels, DecideAlikeInPrefillAndDecode) {
  for (const std::string model : {"mixtral", "deepseek_v2"})
    for (size_t which = 0; which < kRouted.size(); ++which) {
      SCOPED_TRACE(model + " " + kRouted[which].first);
      const Recipe recipe = routed(model, which);
      const Output whole = run(model, GetParam(), recipe);
      Sequence single(model, GetParam(), recipe);
      Output parts;
      for (const TokenId token : kTokens) {
        Output one = single.feed({&token, 1});
        parts.logits.insert(parts.logits.end(), one.logits.begin(), one.logits.end());
        parts.frames.push_back(std::move(one.frames[0]));
      }
      EXPECT_TRUE(GetParam() != "cpu" || identical(whole, parts));
      EXPECT_LE(largest_difference(whole.logits, parts.logits), 1e-4);
    }
  EXPECT_TRUE(identical(run("mixtral", GetParam(), {}), run("mixtral", GetParam(), {})));
}

// MoGU serves what the first generated tokens need: of 4 prompt tokens and 2 served ones the tokens 0 to 4.
TEST_P(AdaptedModels, MoguEndsAfterItsTokens) {
  const std::string model = "mixtral";
  const ModelPlan& plan = checkpoint(model).plan;
  AdapterFile file(model);
  const std::map<std::string, AdapterValue> shares{{"share_0", 0.9}, {"share_1", 0.4}};
  auto limited = shares, always = shares;
  limited["tokens"] = 2.0, always["tokens"] = 0.0;
  const std::vector<std::string> last{"layers.1.block_sparse_moe.experts.0.w2",
                                      "layers.1.block_sparse_moe.experts.1.w2",
                                      "layers.1.block_sparse_moe.experts.2.w2",
                                      "layers.1.block_sparse_moe.experts.3.w2"};  // nothing later keeps what they did
  const Recipe some = file.recipe(plan, "mogu", limited, last), all = file.recipe(plan, "mogu", always, last);
  const auto logits = [&](const Recipe& recipe, int prompt) {
    std::vector<float> out(kTokens.size() * size_t(plan.vocab));
    const auto cache = backend(model, GetParam()).new_cache(64);
    const auto done = backend(model, GetParam())
                          .forward({.tokens = kTokens,
                                    .cache = cache.get(),
                                    .recipe = &recipe,
                                    .prompt = prompt,
                                    .rows = LogitRows::kAll,
                                    .logits = out});
    EXPECT_TRUE(done);
    return out;
  };
  const auto native = logits({}, 4), served = logits(all, 4), ended = logits(some, 4), unknown = logits(some, 0);
  EXPECT_EQ(unknown, served);
  const auto of = [&](const std::vector<float>& rows, size_t token) {
    return std::vector<float>(rows.begin() + std::ptrdiff_t(token * size_t(plan.vocab)),
                              rows.begin() + std::ptrdiff_t((token + 1) * size_t(plan.vocab)));
  };
  ASSERT_EQ(plan.layers.size(), 2u) << "the last layer is meant";
  size_t changed = 0;
  for (size_t token = 0; token < kTokens.size(); ++token) {
    EXPECT_EQ(of(ended, token), of(token < 5 ? served : native, token)) << token;
    changed += of(served, token) != of(native, token);
  }
  EXPECT_GT(changed, kTokens.size() / 2) << "the adapted experts run for most tokens";
}

INSTANTIATE_TEST_SUITE_P(Backends, AdaptedModels, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

#ifdef SWITCHYARD_WITH_REFERENCE
TEST(AdaptedParity, BothBackendsRouteAlike) {
  for (const std::string& model : kModels)
    for (size_t which = 0; which < kRouted.size(); ++which) {
      const Recipe recipe = routed(model, which);
      const Output judge = run(model, "reference", recipe), got = run(model, "cpu", recipe);
      const Difference d = compare(judge, got);
      int rows = 0;
      for (size_t token = 0; token < kTokens.size(); ++token)
        for (const AdapterRow& row : adapter_rows(checkpoint(model).plan, recipe)) {
          const RoutingFrame &a = judge.frames[token], &b = got.frames[token];
          if (a.layer(row.row).k_used < 2 && a.layer(row.row).stats.margin < kTie) continue;
          ++rows;
          EXPECT_TRUE(std::ranges::equal(a.used_ids(row.row), b.used_ids(row.row))) << model << " " << kRouted[which].first;
          EXPECT_LE(largest_difference(a.weights(row.row), b.weights(row.row)), 1e-3);
        }
      EXPECT_GT(rows, int(kTokens.size()));
      EXPECT_LE(d.logits, 2e-3) << model << " " << kRouted[which].first << ": " << d;
      EXPECT_EQ(d.sets_differing, 0) << model << " " << kRouted[which].first << ": " << d;
    }
}
#endif

}  // namespace
}  // namespace switchyard::testing

// Schemes that the host decides in the midst of a step: every scheme of the list, and schemes that are code. The numbers
// are those of the cpu backend, which decides by the same functions but computes everything else by itself; where the
// judge is built, those of the reference backend too.
#include <fstream>
#include <iostream>
#include <map>
#include <random>

#include "engine/backend/cuda/gate_tables.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/scheme_file.h"
#include "engine/runtime/sampler.h"
#include "tests/cuda_on_cpu/runs.h"

namespace switchyard::cuda::testing {
namespace {

SchemeMatrix any_matrix(int64_t rows, int64_t cols, float spread, std::mt19937& random) {
  SchemeMatrix out{rows, cols, std::vector<float>(size_t(rows * cols))};
  for (float& value : out.values) value = std::normal_distribution<float>(0, spread)(random);
  return out;
}

// A file with seeded tensors for every scheme that can read one.
std::string file_for(const std::string& name) {
  static std::map<std::string, std::string> made;
  if (!made[name].empty()) return made[name];
  const ModelPlan& plan = model(name).plan();
  std::mt19937 random(20261130);
  constexpr int kState = 6, kSlices = 4;
  SchemeFile file;
  for (size_t part = 0; part < file.gru.weight.size(); ++part) {
    file.gru.weight[part] = any_matrix(kState, kState, 0.5f, random);
    file.gru.bias[part] = any_matrix(1, kState, 0.5f, random).values;
  }
  for (size_t row = 0; row < plan.moe_layers.size(); ++row) {
    SchemeData& data = file.layers[plan.moe_layers[row]];
    const int experts = plan.routed(int(row)).router.experts;
    const float spread = 1 / std::sqrt(float(plan.hidden));
    data.columns = 1;
    for (int id = 0; id < plan.vocab; ++id) data.table.push_back(ExpertId(random() % size_t(experts)));
    data.to_state = any_matrix(kState, plan.hidden, spread, random);
    data.from_state = any_matrix(experts, kState, 2, random);
    data.width = plan.hidden;
    data.prototypes = any_matrix(experts, plan.hidden, 1, random).values;
    data.nulls = any_matrix(4, plan.hidden, 0.5f, random);
    data.likeness = any_matrix(plan.hidden, plan.hidden, spread, random);
    data.bank.exemplars = any_matrix(24, plan.hidden, 1, random);
    for (int i = 0; i < 24; ++i) data.bank.labels.push_back(ExpertId(i % 3));
    data.bank.predictions = data.bank.labels;
    for (ExpertId e = 0; e < 3; ++e) data.bank.classes.push_back({e, {8, 12, 16, 20, 24}});
    // The first pass of the last router is the model's own.
    for (int pass = 0; pass < 2; ++pass)
      data.gates.push_back(pass == 0 && row + 1 == plan.moe_layers.size()
                               ? std::vector<float>()
                               : any_matrix(experts, plan.hidden, spread, random).values);
    data.gate_width = plan.hidden;
    data.slice_gate = any_matrix(kSlices, plan.hidden, spread, random).values;
    data.slice_bias = any_matrix(1, kSlices, spread, random).values;
    data.slice_width = plan.hidden;
  }
  const std::string path = ::testing::TempDir() + "/host_" + name + ".safetensors";
  std::ofstream(path, std::ios::binary) << scheme_file_bytes(file);
  return made[name] = path;
}

using Parameters = std::map<std::string, SchemeValue>;

// Every scheme by its defaults, with the file where it can read one, and what changes its course.
std::vector<Scheme> schemes_of_the_list(const std::string& on) {
  std::vector<Scheme> out;
  const auto add = [&](const std::string& name, Parameters parameters) {
    const auto made = make_scheme({name, std::move(parameters)});
    EXPECT_TRUE(made) << name << ": " << (made ? "" : made.error().message());
    if (made) out.push_back(*made);
  };
  for (const SchemeInfo& info : schemes()) {
    const std::string name = info.name;
    if (name == "native" || name == "replay") continue;
    const auto has = [&](const char* parameter) {
      return std::ranges::any_of(info.parameters, [&](const auto& p) { return std::string(p.name) == parameter; });
    };
    const bool needs = std::ranges::any_of(info.needs, [](const char* need) { return std::string(need) == "file"; });
    const SchemeValue file = file_for(on);
    if (!needs) add(name, {});
    if (has("file")) add(name, {{"file", file}});
    if (name == "similarity" || name == "attention") {
      add(name, {{"lambda", 1.0}, {"window", 3.0}, {"mode", std::string("raw")}});
      add(name, {{"lambda", 0.0}});
    }
    if (name == "chain_of_experts")
      for (const char* residual : {"sum", "inner", "outer"}) {
        add(name, {{"iterations", 2.0}, {"residual", std::string(residual)}});
        add(name, {{"iterations", 2.0}, {"residual", std::string(residual)}, {"file", file}});
      }
    if (name == "union_of_experts")
      for (const char* selection : {"data", "token", "sequence"}) {
        add(name, {{"slices", 4.0}, {"on", 2.0}, {"selection", std::string(selection)}});
        add(name, {{"slices", 4.0}, {"on", 1.0}, {"selection", std::string(selection)}, {"file", file}});
      }
  }
  return out;
}

TEST(HostSchemes, EverySchemeOfTheListRunsAsOnTheCpuBackend) {
  int on_host = 0, all = 0;
  for (const std::string name : {"olmoe_bf16", "qwen2_moe", "deepseek_v3"}) {
    const OpenModel& on = model(name);
    for (const Scheme& scheme : schemes_of_the_list(name)) {
      const int passes = std::max(1, scheme.stages.passes);
      const std::string what = name + ", " + describe(scheme.choice);
      const Recipe recipe = with_scheme(on.plan(), scheme);
      expect_alike(run(on, device(name), recipe), run(on, *on.cpu, recipe), what, 4e-4 * passes);
      on_host += !beyond_table(recipe.layers[0]).empty(), ++all;
    }
    EXPECT_TRUE(same_bits(run(on, device(name), {}).logits, run(on, device(name), empty_recipe(on.plan())).logits));
  }
  std::cout << on_host << " of " << all << " schemes on the host\n";
  EXPECT_GT(on_host, 30);
}

// Blocks of 256 tokens, and more than one piece of a prompt.
TEST(HostSchemes, DecideForTokensTogetherInTheBlocksOfOtherBackends) {
  const OpenModel& on = model("olmoe");
  const auto backend = on.device({}, 600);
  for (const auto& [name, tokens] :
       {std::pair("switch_route", 530), {"expert_choice", 270}, {"union_of_experts", 270}}) {
    const auto ids = text(on.plan(), tokens);
    const Recipe recipe = with_scheme(on.plan(), *make_scheme({name, {}}));
    const auto here = backend->new_cache(600), there = on.cpu->new_cache(600);
    expect_alike(on.forward(*backend, *here, ids, recipe), on.forward(*on.cpu, *there, ids, recipe), name, 4e-4);
  }
}

// The masks, chunks, sinks and latents of the attention that a router follows.
TEST(HostSchemes, FollowEveryKindOfAttention) {
  for (const std::string name : {"gpt_oss", "deepseek_v2", "mixtral_window", "llama4_text", "granitemoe"})
    for (const double window : {3.0, 256.0}) {
      const OpenModel& on = model(name);
      const auto scheme = make_scheme({"attention", {{"lambda", 1.0}, {"window", window}}});
      const Recipe recipe = with_scheme(on.plan(), *scheme);
      if (!cannot_mix(recipe.layers[0].scheme, on.plan(), 0).empty()) continue;
      expect_alike(run(on, device(name), recipe, 21, 2), run(on, *on.cpu, recipe, 21, 2), name, 1e-3);
    }
}

// One layer on the host: what lies around it is as without, and the record has every row.
TEST(HostSchemes, StandBesideLayersOnTheDevice) {
  const OpenModel& on = model("olmoe_bf16");
  const Recipe recipe = with_scheme(on.plan(), *make_scheme({"prototype", {}}), 1);
  const Pass native = run(on, device("olmoe_bf16"), {}), mixed = run(on, device("olmoe_bf16"), recipe);
  expect_alike(mixed, run(on, *on.cpu, recipe), "prototype in layer 1");
  for (size_t t = 0; t < native.frames.size(); ++t) {
    EXPECT_TRUE(std::ranges::equal(native.frames[t].logits(0), mixed.frames[t].logits(0)));
    EXPECT_TRUE(std::ranges::equal(native.frames[t].weights(0), mixed.frames[t].weights(0)));
  }
  EXPECT_FALSE(same_bits(native.logits, mixed.logits));
}

// Edits of the layer hold under schemes of the host.
TEST(HostSchemes, TakeTheLayersEdits) {
  const OpenModel& on = model("qwen2_moe");
  const auto experts = size_t(on.plan().routed(0).router.experts);
  for (const char* name :
       {"prototype", "similarity", "chain_of_experts", "switch_route", "expert_choice", "base_balanced"}) {
    Recipe recipe = with_scheme(on.plan(), *make_scheme({name, {}}));
    for (LayerRecipe& layer : recipe.layers) {
      layer.temperature = 1.3f;
      layer.muted.assign(experts, 0), layer.forced.assign(experts, 0), layer.expert_scale.assign(experts, 0.8f),
          layer.logit_bias.assign(experts, 0.0f), layer.unit_masks.resize(experts), layer.mixes.resize(experts);
      layer.muted[1] = 1, layer.forced[2] = 1, layer.logit_bias[0] = 0.7f;
      layer.unit_masks[3] = {0, 3}, layer.mixes[0] = {{4, 1.0f}}, layer.mixes[4] = {{0, 1.0f}};
    }
    expect_alike(run(on, device("qwen2_moe"), recipe), run(on, *on.cpu, recipe), name, 4e-4);
  }
}

// A scheme that is code: decides by input and state, or edits the logits, or fails.
class TestCode final : public SchemeCode {
 public:
  enum class Kind { kDecides, kEdits, kFails };
  explicit TestCode(Kind kind) : kind_(kind) {}
  bool edits_logits() const override { return kind_ == Kind::kEdits; }
  bool reads_input() const override { return true; }
  int state_floats() const override { return 2; }
  int slots(int, int) const override { return 2; }
  bool decide(const CodeCall& call, const DecisionSpans& out, int& used) const override {
    if (kind_ == Kind::kFails) return false;
    const auto best = std::max_element(call.logits.begin(), call.logits.end()) - call.logits.begin();
    call.state[0] += 1, call.state[1] += std::abs(call.in.hidden[0]);
    const auto other = (best + 1 + ptrdiff_t(call.state[0])) % ptrdiff_t(call.logits.size());
    out.ids[0] = ExpertId(best), out.ids[1] = ExpertId(other), used = other == best ? 1 : 2;
    out.weights[0] = 0.75f, out.weights[1] = 0.25f / (1 + call.state[1]);
    out.kinds[0] = out.kinds[1] = SlotKind::kRouted;
    return true;
  }
  bool edit(const CodeCall& call, std::span<float> logits) const override {
    call.state[0] += 0.5f;
    logits[0] += call.state[0] + call.in.hidden[1];
    return true;
  }

 private:
  Kind kind_;
};

TEST(HostSchemes, OfCodeDecideWithInputAndState) {
  for (const auto kind : {TestCode::Kind::kDecides, TestCode::Kind::kEdits, TestCode::Kind::kFails}) {
    const OpenModel& on = model("olmoe");
    Recipe recipe = empty_recipe(on.plan());
    Scheme scheme;
    scheme.choice.name = "code";
    scheme.code = std::make_shared<const TestCode>(kind);
    for (size_t row = 0; row < recipe.layers.size(); ++row)
      recipe.layers[row].scheme = scheme.of_layer(on.plan().moe_layers[row]);
    const Pass got = run(on, device("olmoe"), recipe);
    expect_alike(got, run(on, *on.cpu, recipe), "code " + std::to_string(int(kind)));
    EXPECT_EQ((got.frames[0].header().flags & FrameFlags::kFallback) != 0, kind == TestCode::Kind::kFails);
    EXPECT_EQ(same_bits(got.logits, run(on, device("olmoe"), {}).logits), kind == TestCode::Kind::kFails);
  }
}

TEST(HostSchemes, MixingFollowsTheCacheThroughBranchesAndRewinds) {
  const OpenModel& on = model("olmoe");
  const auto ids = text(on.plan(), 40);
  for (const char* name : {"similarity", "attention", "union_of_experts"}) {
    SCOPED_TRACE(name);
    const Parameters parameters = std::string(name) == "union_of_experts"
                                      ? Parameters{{"slices", 4.0}, {"on", 2.0}, {"selection", std::string("sequence")}}
                                      : Parameters{};
    const Recipe recipe = with_scheme(on.plan(), *make_scheme({name, parameters}));
    const auto straight = device("olmoe").new_cache(64);
    on.forward(device("olmoe"), *straight, std::span(ids).first(20), recipe);
    const auto branch = straight->clone();
    const Pass after = on.one_by_one(device("olmoe"), *straight, std::span(ids).subspan(20, 4), recipe);
    on.forward(device("olmoe"), *branch, std::span(ids).subspan(30, 10), recipe);
    EXPECT_EQ(branch->truncate(20), 20);
    EXPECT_TRUE(
        same_bits(after.logits, on.one_by_one(device("olmoe"), *branch, std::span(ids).subspan(20, 4), recipe).logits));
    EXPECT_EQ(straight->truncate(20), 20);
    EXPECT_TRUE(same_bits(after.logits,
                          on.one_by_one(device("olmoe"), *straight, std::span(ids).subspan(20, 4), recipe).logits));
  }
}

TEST(HostSchemes, RunAheadAsTheyStep) {
  const OpenModel& on = model("olmoe_bf16");
  CudaBackend& backend = device("olmoe_bf16");
  const auto prompt = text(on.plan(), 4);
  const Recipe recipe = with_scheme(on.plan(), *make_scheme({"prototype", {}}), 0);
  const auto stepped = backend.new_cache(64), ahead = backend.new_cache(64);
  on.forward(backend, *stepped, prompt, recipe);
  on.forward(backend, *ahead, prompt, recipe);
  std::vector<TokenId> expected{9};
  std::vector<RoutingFrame> expected_frames;
  for (uint64_t index = 5; index < 10; ++index) {
    const Pass pass = on.forward(backend, *stepped, {&expected.back(), 1}, recipe);
    expected_frames.push_back(pass.frames[0]);
    expected.push_back(sample(pass.logits, {}, 0, index));
  }
  std::vector<RoutingFrame> frames(5, make_frame(on.plan(), recipe, CaptureLevel::kLogits));
  const auto chosen = value_of(backend.decode(*ahead, recipe, 9, 5, {}, 0, frames));
  EXPECT_EQ(chosen, std::vector<TokenId>(expected.begin() + 1, expected.end()));
  EXPECT_EQ(ahead->length(), 9);
  for (size_t t = 0; t < frames.size(); ++t)
    EXPECT_TRUE(std::ranges::equal(frames[t].arena(), expected_frames[t].arena())) << "token " << t;
}

#ifdef SWITCHYARD_WITH_REFERENCE
// The judge shares no code with the device but route().
TEST(HostSchemes, AgreeWithTheJudge) {
  const OpenModel& on = model("olmoe_bf16");
  auto judge = make_backend("reference", on.checkpoint, on.weights, {.threads = 1});
  ASSERT_TRUE(judge) << judge.error().message();
  for (const Scheme& scheme : schemes_of_the_list("olmoe_bf16")) {
    const Recipe recipe = with_scheme(on.plan(), scheme);
    expect_alike(run(on, device("olmoe_bf16"), recipe), run(on, **judge, recipe), describe(scheme.choice), 2e-3);
  }
}
#endif

}  // namespace
}  // namespace switchyard::cuda::testing

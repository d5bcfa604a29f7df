// Device source of plugins: the example noisy-gate compiled by g++ inside the kernel that a device would run, against
// its host function; sources that are wrong on purpose; whole runs; and what NVRTC makes of the text, where there is
// NVRTC.
#include <cstring>
#include <set>

#include "tests/cuda_on_cpu/cuda_on_cpu.h"
// After the emulator:
#include "engine/backend/cuda/device_schemes.h"
#include "engine/backend/cuda/intrinsics.cuh"
#include "engine/plugin_host/code.h"
#include "plugins/examples/noisy-gate/noisy_gate.cpp"
#include "tests/cuda_on_cpu/device_on_cpu.h"
#include "tests/cuda_on_cpu/runs.h"

#include <switchyard/device.h>

#define sy_device_route noisy_route
#include "plugins/examples/noisy-gate/noisy_gate.cu"
#undef sy_device_route

namespace {

// What the device's function does otherwise than the host's.
enum class Wrong { kNothing, kWeight, kExpert, kOneTokenInMany, kTwice, kNotFinite, kFails, kPhase };
Wrong wrong = Wrong::kNothing;

unsigned steered_route(const sy_device_in* in, int* id, float* weight, unsigned char* flags) {
  const unsigned used = noisy_route(in, id, weight, flags);
  switch (wrong) {
    case Wrong::kNothing:
      break;
    case Wrong::kWeight:
      weight[0] *= 1.00001f;
      break;
    case Wrong::kExpert:
      std::swap(id[0], id[used - 1]);
      break;
    case Wrong::kOneTokenInMany:
      flags[0] = in->position == 200;
      break;
    case Wrong::kTwice:
      id[used - 1] = id[0];
      break;
    case Wrong::kNotFinite:
      weight[0] /= 0.0f;
      break;
    case Wrong::kFails:
      return 0;
    case Wrong::kPhase:
      weight[0] *= in->phase == 0 ? 1.0f : 1.5f;
      break;
  }
  return used;
}

}  // namespace

#define sy_device_route steered_route
#include "engine/backend/cuda/scheme_kernel.cuh"
#undef sy_device_route

namespace switchyard::cuda::testing {
namespace {

// The example as PluginGate would hand it on.
class Noisy final : public SchemeCode, public DeviceCode {
 public:
  explicit Noisy(std::string source = kDeviceSource, std::string name = "noisy-gate.noisy_top_k")
      : source_(std::move(source)), name_(std::move(name)) {
    static sy_host host{};
    host.struct_size = sizeof host, host.random = plugin_random;
    sy::detail::host() = &host;
    stand_in_for("noisy-gate.noisy_top_k.cu", sy_decide);
  }
  bool edits_logits() const override { return false; }
  bool reads_input() const override { return reads_input_; }
  int state_floats() const override { return 0; }
  int slots(int, int k) const override { return k; }
  bool edit(const CodeCall&, std::span<float>) const override { return false; }
  bool decide(const CodeCall& call, const DecisionSpans& out, int& used) const override {
    ++asked_;
    const int32_t token = call.in.token;
    sy_scheme_in in{};
    in.struct_size = sizeof in, in.tokens = 1, in.experts = uint32_t(call.logits.size()), in.k = uint32_t(call.k);
    in.slots = in.k, in.layer = uint32_t(call.layer), in.row = uint32_t(call.in.row), in.sequence = call.in.sequence;
    in.phase = call.in.together > 1 ? SY_PHASE_TOGETHER : SY_PHASE_ALONE;
    in.parameter_count = 2, in.parameters = parameters_, in.logits = call.logits.data();
    in.token_ids = &token, in.positions = &call.in.index;
    std::vector<int32_t> id(in.k);
    uint32_t count = 0;
    sy_scheme_out answer{};
    answer.count = &count, answer.id = id.data(), answer.weight = out.weights.data();
    sy::Choice choice(in, answer, 0);
    scheme_.route({in, 0, call.logits, {}, {}}, choice);
    used = int(count);
    for (size_t slot = 0; slot < count; ++slot) out.ids[slot] = ExpertId(id[slot]), out.kinds[slot] = SlotKind::kRouted;
    return count > 0;
  }
  const std::string& device_source() const override { return source_; }
  const std::string& device_name() const override { return name_; }
  std::span<const double> device_parameters() const override { return parameters_; }
  void tell_of_device(const std::string& line, bool fault) const override { told_.emplace(line, fault); }

  bool reads_input_ = false;
  mutable int asked_ = 0;
  mutable std::set<std::pair<std::string, bool>> told_;

 private:
  mutable NoisyTopK scheme_;
  std::string source_, name_;
  const double parameters_[2] = {0.5, 77};
};

DevicePlace place_of(int experts, int k) {
  return {.experts = experts, .k = k, .slots = k, .layer = 3, .row = 2, .sequence = 5, .position = 7};
}

std::unique_ptr<DeviceScheme> compiled(const Noisy& noisy) {
  return value_of(DeviceScheme::make(noisy, noisy, value_of(compile_kernel(scheme_text(noisy), kSchemeKernelName))));
}

TEST(DeviceSource, DecidesAsTheHostFunctionBitForBit) {
  wrong = Wrong::kNothing;
  const Noisy noisy;
  for (const auto& [experts, k] : {std::pair(4, 2), {8, 1}, {60, 4}, {128, 8}}) {
    auto scheme = compiled(noisy);
    DevicePlace place = place_of(experts, k);
    const SchemeTrial trial = try_host(noisy, place);
    const OnDevice<float> logits(trial.logits);
    place.logits = logits.data(), place.together = 256;
    value_of(scheme->launch(stream(), place, trial.tokens, {}));
    std::vector<unsigned char> bytes(raw_bytes(trial.tokens.size(), k));
    value_of(scheme->fetch(stream(), trial.tokens.size(), bytes.data()));
    value_of(wait(stream(), "a test"));
    const RawDecisions got = read_raw(bytes.data(), trial.tokens.size(), k);
    ASSERT_EQ(got.count, trial.together.count);
    for (size_t row = 0; row < got.count.size(); ++row)
      for (size_t at = row * size_t(k); at < row * size_t(k) + got.count[row]; ++at) {
        ASSERT_EQ(got.id[at], trial.together.id[at]) << experts << " experts, row " << row;
        ASSERT_EQ(std::memcmp(&got.weight[at], &trial.together.weight[at], 4), 0) << experts << " experts, row " << row;
      }
    EXPECT_EQ(value_of(scheme->differs(stream(), place)), "");
  }
}

TEST(DeviceSource, OneThatDiffersIsRefused) {
  const Noisy noisy;
  for (const auto& [how, says] : {std::pair(Wrong::kWeight, "weight"),
                                  {Wrong::kExpert, "expert"},
                                  {Wrong::kOneTokenInMany, "row 193"},
                                  {Wrong::kTwice, "0 slots"},
                                  {Wrong::kNotFinite, "0 slots"},
                                  {Wrong::kFails, "0 slots"},
                                  {Wrong::kPhase, "weight"}}) {
    wrong = how;
    auto scheme = compiled(noisy);
    const std::string why = value_of(scheme->differs(stream(), place_of(16, 3)));
    EXPECT_NE(why.find(says), std::string::npos) << int(how) << ": " << why;
  }
  wrong = Wrong::kNothing;
}

struct Runs {
  Recipe recipe;
  std::shared_ptr<Noisy> code;
};
Runs with_code(const ModelPlan& plan, std::shared_ptr<Noisy> code) {
  Runs out{empty_recipe(plan), code};
  Scheme scheme;
  scheme.choice.name = "noisy";
  scheme.code = code;
  for (size_t row = 0; row < out.recipe.layers.size(); ++row)
    out.recipe.layers[row].scheme = scheme.of_layer(plan.moe_layers[row]);
  return out;
}
uint64_t launches() {
  const auto found = traffic_by_kernel().find("sy_decide");
  return found == traffic_by_kernel().end() ? 0 : found->second.launches;
}
void expect_same(const Pass& a, const Pass& b) {
  EXPECT_TRUE(same_bits(a.logits, b.logits));
  ASSERT_EQ(a.frames.size(), b.frames.size());
  for (size_t t = 0; t < a.frames.size(); ++t) {
    EXPECT_EQ(a.frames[t].header().flags, b.frames[t].header().flags) << "token " << t;
    EXPECT_TRUE(std::ranges::equal(a.frames[t].arena(), b.frames[t].arena())) << "token " << t;
  }
}

// Scaled weights (deepseek_v3), weights of the input (llama4_text), a router with a bias (gpt_oss), more experts per
// token.
TEST(DeviceSource, RunsAreThoseOfTheHostFunctionBitForBit) {
  for (const std::string name : {"olmoe", "deepseek_v3", "llama4_text", "gpt_oss"}) {
    SCOPED_TRACE(name);
    const OpenModel& on = model(name);
    Runs there = with_code(on.plan(), std::make_shared<Noisy>()),
         here = with_code(on.plan(), std::make_shared<Noisy>(""));
    there.recipe.layers[0].k = here.recipe.layers[0].k = 3;
    const uint64_t before = launches();
    const Pass got = run(on, device(name), there.recipe);
    EXPECT_TRUE(there.code->told_.empty());
    EXPECT_GT(launches(), before + 2);
    const int asked = there.code->asked_;
    expect_same(run(on, device(name), there.recipe), got);
    EXPECT_EQ(there.code->asked_, asked) << "the host function was asked again";
    expect_same(got, run(on, device(name), here.recipe));
    expect_alike(got, run(on, *on.cpu, here.recipe), name, 4e-4);
    EXPECT_FALSE(same_bits(got.logits, run(on, device(name), {}).logits));
  }
}

TEST(DeviceSource, TokensAheadAreThoseOfTheHostFunction) {
  const OpenModel& on = model("olmoe");
  std::vector<std::vector<TokenId>> chosen;
  for (const char* source : {kDeviceSource, ""}) {
    const Runs runs = with_code(on.plan(), std::make_shared<Noisy>(source));
    const auto cache = device("olmoe").new_cache(64);
    on.forward(device("olmoe"), *cache, text(on.plan(), 5), runs.recipe);
    std::vector<RoutingFrame> frames;
    chosen.push_back(value_of(device("olmoe").decode(*cache, runs.recipe, 9, 6, {}, 0, frames)));
  }
  EXPECT_EQ(chosen[0], chosen[1]);
}

TEST(DeviceSource, WhatItRefusesTheModelsOwnRouterDecides) {
  const OpenModel& on = model("olmoe");
  const Runs there = with_code(on.plan(), std::make_shared<Noisy>());
  run(on, device("olmoe"), there.recipe);  // compared while it was right
  wrong = Wrong::kFails;
  const Pass got = run(on, device("olmoe"), there.recipe);
  wrong = Wrong::kNothing;
  for (const RoutingFrame& frame : got.frames) EXPECT_TRUE(frame.header().flags & FrameFlags::kFallback);
  EXPECT_TRUE(same_bits(got.logits, run(on, device("olmoe"), {}).logits));
  ASSERT_EQ(there.code->told_.size(), 1u);
  EXPECT_TRUE(there.code->told_.begin()->second);
  EXPECT_NE(there.code->told_.begin()->first.find("the model's own router decided"), std::string::npos);
}

// One that differs, one where there is no NVRTC, one with edits in force, one that reads more: the host function
// decides.
TEST(DeviceSource, WhereItCannotRunTheHostFunctionDecidesAndPeopleAreTold) {
  const OpenModel& on = model("olmoe");
  for (const std::string how : {"differs", "NVRTC", "edits", "logits alone"}) {
    SCOPED_TRACE(how);
    Runs there = with_code(
        on.plan(), how == "NVRTC" ? std::make_shared<Noisy>(kDeviceSource, "elsewhere") : std::make_shared<Noisy>());
    Runs here = with_code(on.plan(), std::make_shared<Noisy>(""));
    there.code->reads_input_ = here.code->reads_input_ = how == "logits alone";
    if (how == "differs") wrong = Wrong::kWeight;
    if (how == "edits")
      for (Recipe* recipe : {&there.recipe, &here.recipe})
        for (LayerRecipe& layer : recipe->layers) layer.temperature = 0.7f;
    const Pass got = run(on, device("olmoe"), there.recipe);
    wrong = Wrong::kNothing;
    expect_same(got, run(on, device("olmoe"), here.recipe));
    ASSERT_EQ(there.code->told_.size(), 1u);
    const auto& [line, fault] = *there.code->told_.begin();
    EXPECT_NE(line.find(how), std::string::npos) << line;
    EXPECT_NE(line.find("the host function decides"), std::string::npos) << line;
    EXPECT_EQ(fault, how == "differs") << line;
  }
}

// NVRTC needs no GPU.
TEST(DeviceSource, CompilesByNvrtcAndErrorsNameThePluginsLines) {
  const Noisy noisy;
  const auto ptx = compile(scheme_text(noisy), "compute_80");
  if (!ptx && ptx.error().code == ErrorCode::kNotFound) GTEST_SKIP() << ptx.error().message();
  ASSERT_TRUE(ptx) << ptx.error().message();
  EXPECT_NE(ptx->find(".target sm_80"), std::string::npos);
  EXPECT_NE(ptx->find(".entry sy_decide"), std::string::npos);
  const auto cubin = compile(scheme_text(noisy), "sm_90");
  ASSERT_TRUE(cubin) << cubin.error().message();
  EXPECT_EQ(cubin->substr(0, 4),
            "\x7f"
            "ELF");

  const Noisy broken(
      "SY_DEVICE unsigned sy_device_route(const sy_device_in* in, int*, float*, unsigned char*) {\n"
      "  return in->expert;\n}\n",
      "my-gate.gate");
  const auto refused = compile(scheme_text(broken), "compute_80");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kMalformed);
  EXPECT_NE(refused.error().message().find("my-gate.gate.cu(2)"), std::string::npos) << refused.error().message();
  EXPECT_NE(refused.error().message().find("expert"), std::string::npos) << refused.error().message();
}

}  // namespace
}  // namespace switchyard::cuda::testing

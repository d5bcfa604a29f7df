// Which backend is made, and what is said when one cannot be.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

Error error_of(Result<std::unique_ptr<Backend>> made) {
  EXPECT_FALSE(made);
  return made ? Error{} : made.error();
}

Result<std::unique_ptr<Backend>> make(const std::string& name, const Checkpoint& from) {
  const auto weights = WeightStore::open(from);
  if (!weights) return tl::unexpected<Error>(weights.error());
  return make_backend(name, from, *weights, {.threads = 1});
}

TEST(MakeBackend, AutoTakesCpuWhereItHasAllKinds) {
  EXPECT_EQ(missing_on_cpu(checkpoint("demo").plan), "");
  const auto made = make("auto", checkpoint("demo"));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ((*made)->info().name, "cpu");
  EXPECT_EQ((*made)->info().note, "");
}

// With a GPU it opens; without one, without a driver or without its module it says which of them is missing.
TEST(MakeBackend, CudaWithoutADeviceAndUnknownNamesAreRefusedWithTheReason) {
  if (auto made = make("cuda", checkpoint("demo")); !made) {
    const Error cuda = made.error();
    EXPECT_EQ(cuda.code, ErrorCode::kDevice);
    EXPECT_TRUE(cuda.message().find("cudaGetDeviceCount failed") != std::string::npos || cuda.message().find("is not there") != std::string::npos) << cuda.message();
    EXPECT_NE(cuda.message().find("--backend cpu"), std::string::npos) << cuda.message();
  }
  const Error unknown = error_of(make("tpu", checkpoint("demo")));
  EXPECT_EQ(unknown.code, ErrorCode::kUsage);
  EXPECT_NE(unknown.message().find("auto, cpu, reference or cuda"), std::string::npos) << unknown.message();
}

// A plan with a kind that cpu lacks: the demo's, its first attention declared an encoder's.
Checkpoint with_encoder_attention() {
  Checkpoint changed = checkpoint("demo");
  changed.plan.layers[0].get<AttentionSpec>().causal = false;
  return changed;
}

TEST(MakeBackend, CpuNamesTheKindItLacks) {
  const Error error = error_of(make("cpu", with_encoder_attention()));
  EXPECT_EQ(error.code, ErrorCode::kUsage);
  EXPECT_NE(error.message().find("encoder or cross-attention (layer 0)"), std::string::npos) << error.message();
}

// What missing_on_cpu() says once the demo's third layer is changed.
std::string missing_after(const std::function<void(LayerPlan&)>& change) {
  ModelPlan plan = checkpoint("demo").plan;
  change(plan.layers[2]);
  return missing_on_cpu(plan);
}

TEST(MissingOnCpu, EveryKindThatIsMissingHasItsWords) {
  const auto op = [](SublayerOp kind) {
    return missing_after([&](LayerPlan& layer) { layer.sublayers[0].op = kind; });
  };
  EXPECT_EQ(op(MixtureAttentionSpec{}), "attention with experts (layer 2)");
  EXPECT_EQ(op(LightningSpec{}), "lightning attention (layer 2)");
  EXPECT_EQ(op(DeltaNetSpec{}), "the gated delta rule (layer 2)");
  EXPECT_EQ(op(MambaSpec{}), "state space (Mamba) layers (layer 2)");
  EXPECT_EQ(op(ShortConvSpec{}), "convolution layers (layer 2)");

  const auto moe = [](const std::function<void(MoeSpec&)>& change) {
    return missing_after([&](LayerPlan& layer) { change(layer.get<MoeSpec>()); });
  };
  EXPECT_EQ(moe([](MoeSpec& m) { m.router.product_key = true; }), "product key routing (layer 2)");
  EXPECT_EQ(moe([](MoeSpec& m) { m.router.capacity = Capacity::kFactor; }), "experts with a capacity (layer 2)");
  EXPECT_EQ(moe([](MoeSpec& m) { m.expert.kind = FfnKind::kRankOne; }), "experts of rank one (layer 2)");
  EXPECT_EQ(moe([](MoeSpec& m) { m.expert.kind = FfnKind::kGluDouble; }),
            "feed-forward blocks with a doubled gate (layer 2)");
  EXPECT_EQ(moe([](MoeSpec& m) {
              m.shared = FfnSpec{{.kind = FfnKind::kGluDouble}, {}};
            }),
            "feed-forward blocks with a doubled gate (layer 2)");
  EXPECT_EQ(missing_after([](LayerPlan& layer) {
              layer.sublayers[1].deferred = true;
              layer.sublayers[1].base_scale = 2;
            }),
            "deferred sublayers that scale the residual (layer 2)");
}

TEST(MissingOnCpu, ATypeThatNothingReadsIsNamedWithItsTensor) {
  const std::string missing = missing_after([](LayerPlan& layer) { layer.get<AttentionSpec>().q.dtype = DType::kI64; });
  EXPECT_NE(missing.find("I64 weights (" + checkpoint("demo").plan.layers[2].get<AttentionSpec>().q.name + ")"),
            std::string::npos)
      << missing;
}

TEST(MakeBackend, NoBackendTakesARouterThatCannotBeExecuted) {
  Checkpoint sparse = checkpoint("demo");
  sparse.plan.layers[2].get<MoeSpec>().router.experts_per_token = 0;
  for (const char* name : {"cpu", "reference", "auto"}) {
    const Error error = error_of(make(name, sparse));
    EXPECT_EQ(error.code, ErrorCode::kUsage);
    EXPECT_NE(error.message().find("the router of layer 2 has 0 experts per token of"), std::string::npos)
        << error.message();
  }
}

#ifdef SWITCHYARD_WITH_REFERENCE
TEST(MakeBackend, AutoFallsToReferenceWithAVisibleNote) {
  const auto made = make("auto", with_encoder_attention());
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ((*made)->info().name, "reference");
  EXPECT_NE((*made)->info().note.find("cpu backend lacks encoder"), std::string::npos) << (*made)->info().note;
}

TEST(MakeBackend, ARouterThatNobodyExecutesIsRefused) {
  Checkpoint changed = checkpoint("demo");
  changed.plan.layers[2].get<MoeSpec>().router.experts_per_token = 0;
  for (const char* name : {"auto", "cpu", "reference"}) {
    const Error error = error_of(make(name, changed));
    EXPECT_EQ(error.code, ErrorCode::kUsage) << name;
    EXPECT_NE(error.message().find("0 experts per token"), std::string::npos) << error.message();
  }
}

TEST(MakeBackend, LoadingTheReferenceCanBeCancelled) {
  const auto weights = WeightStore::open(checkpoint("demo"));
  ASSERT_TRUE(weights);
  Task task;
  task.cancel();
  const Error error = error_of(make_backend("reference", checkpoint("demo"), *weights, {}, &task));
  EXPECT_EQ(error.code, ErrorCode::kCancelled);
}
#endif

TEST(MakeBackend, AMissingModuleNamesThePathTriedAndTheNextStep) {
  setenv("SWITCHYARD_REFERENCE_LIB", "/nowhere/libswitchyard_reference.so", 1);
  const Error error = error_of(make("reference", checkpoint("demo")));
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_NE(error.message().find("/nowhere/libswitchyard_reference.so"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("--backend cpu"), std::string::npos) << error.message();

  setenv("SWITCHYARD_REFERENCE_LIB", "/proc/self/exe", 1);  // a file that is no module
  EXPECT_EQ(error_of(make("reference", checkpoint("demo"))).code, ErrorCode::kNotFound);
  unsetenv("SWITCHYARD_REFERENCE_LIB");
}

// Demo: 8 layers, 2 kv heads of 32, fp32 keys and values.
TEST(EstimateMemory, CountsWeightsAndKeysAndValues) {
  const Checkpoint& demo = checkpoint("demo");
  const MemoryEstimate cpu = estimate_memory("cpu", demo.plan, demo, 1000);
  EXPECT_EQ(cpu.weights, demo.weight_bytes());
  EXPECT_EQ(cpu.kv, 8u * 2 * 2 * 32 * 1000 * 4);
  const MemoryEstimate reference = estimate_memory("reference", demo.plan, demo, 1000);
  EXPECT_EQ(reference.weights, 2 * demo.weight_bytes());  // bf16 to fp32
  EXPECT_GT(cpu.workspace, 0u);
  EXPECT_EQ(cpu.total(), cpu.weights + cpu.kv + cpu.workspace);
}

// minimax: lightning layers of 4 heads of 12 (tests/goldens/minimax), a state of 4 x 12 x 12 each; 2 of 3 layers; a
// copy every 32 tokens, at most 16. The third layer: 2 kv heads of 12.
TEST(EstimateMemory, CountsRecurrentStateAndItsCopies) {
  const Checkpoint& minimax = checkpoint("minimax");
  const auto kv = [&](int context) { return estimate_memory("reference", minimax.plan, minimax, context).kv; };
  EXPECT_EQ(kv(0), 0u);
  EXPECT_EQ(kv(10), (2u * 4 * 12 * 12 + 2 * 2 * 12 * 10) * 4);
  EXPECT_EQ(kv(100), (2u * 4 * 12 * 12 * (1 + 3) + 2 * 2 * 12 * 100) * 4);
  EXPECT_EQ(kv(5000), (2u * 4 * 12 * 12 * (1 + 16) + 2 * 2 * 12 * 5000) * 4);
}

// The context counts: a cache of more tokens than there is memory is refused before anything is loaded.
TEST(EstimateMemory, MakingABackendCountsItsContext) {
  const Checkpoint& demo = checkpoint("demo");
  const auto weights = WeightStore::open(demo);
  ASSERT_TRUE(weights) << weights.error().message();
  EXPECT_TRUE(make_backend("cpu", demo, *weights, {.threads = 1, .context = 4096}));
  const auto refused = make_backend("cpu", demo, *weights, {.threads = 1, .context = 1 << 30});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kMemory);
  EXPECT_NE(refused.error().message().find("keys and values"), std::string::npos) << refused.error().message();
}

TEST(EstimateMemory, WhatDoesNotFitIsRefusedWithTheSumTermByTerm) {
  const MemoryEstimate need{.in_file = 9'000'000'000, .decoded = 1'000'000'000, .weights = 10'000'000'000,
                            .kv = 500'000'000, .workspace = 1'500'000'000};
  EXPECT_TRUE(check_fits(need, 12'000'000'000, "model"));
  const auto refused = check_fits(need, 11'999'999'999, "model");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kMemory);
  EXPECT_EQ(refused.error().message(),
            "model: needs 12.00 GB (weights 10.00 GB, of which 1.00 GB decoded, keys and values 500.0 MB, workspace 1.50 GB); "
            "12.00 GB are available. inspect shows the model without loading it; a quantised release or the other "
            "backend may fit.");
  EXPECT_GT(available_memory(), 100'000'000u);
}

}  // namespace
}  // namespace switchyard::testing

// The backend's promises around the kernels: nothing changes where nothing is edited, edits act as on the cpu backend,
// branches and rewinds are exact, levels of capture change no number, the device chooses tokens as the host does,
// experts in host memory give the same bits, and errors end the backend but not the program.
#include <cstring>

#include "engine/backend/cuda/model.h"
#include "engine/model/linears.h"
#include "engine/runtime/sampler.h"
#include "tests/cuda_on_cpu/device_on_cpu.h"
#include "tests/cuda_on_cpu/model_on_device.h"

namespace switchyard::cuda::testing {
namespace {

const OpenModel& model() {
  static const OpenModel olmoe = OpenModel::open("olmoe_bf16");
  return olmoe;
}
CudaBackend& device() {
  static const std::unique_ptr<CudaBackend> backend = model().device({}, 256);
  return *backend;
}
std::vector<TokenId> text(int count) {
  std::vector<TokenId> out;
  for (int i = 0; i < count; ++i) out.push_back(TokenId((i * 29 + 3) % model().plan().vocab));
  return out;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
void expect_same(const Pass& a, const Pass& b) {
  EXPECT_TRUE(same_bits(a.logits, b.logits));
  ASSERT_EQ(a.frames.size(), b.frames.size());
  for (size_t t = 0; t < a.frames.size(); ++t)
    EXPECT_TRUE(std::ranges::equal(a.frames[t].arena(), b.frames[t].arena())) << "token " << t;
}
// A prompt and then token by token.
Pass run(Backend& backend, const Recipe& recipe, int prompt = 5, int decoded = 3) {
  const auto ids = text(prompt + decoded);
  const auto cache = backend.new_cache(64);
  Pass out = model().forward(backend, *cache, std::span(ids).first(size_t(prompt)), recipe);
  Pass rest = model().one_by_one(backend, *cache, std::span(ids).subspan(size_t(prompt)), recipe);
  out.logits.insert(out.logits.end(), rest.logits.begin(), rest.logits.end());
  for (RoutingFrame& frame : rest.frames) out.frames.push_back(std::move(frame));
  return out;
}
Recipe empty_recipe() {
  Recipe recipe;
  recipe.epoch = 3;
  recipe.layers.resize(model().plan().moe_layers.size());
  return recipe;
}
size_t experts() {
  return size_t(model().plan().routed(0).router.experts);
}

TEST(CudaBackend, TheIdentityRecipeAndARepeatedRunGiveTheSameBits) {
  Recipe identity = empty_recipe();
  for (LayerRecipe& layer : identity.layers) {
    layer.expert_scale.assign(experts(), 1.0f), layer.logit_bias.assign(experts(), 0.0f),
        layer.row_scale.assign(experts(), 1.0f);
    layer.muted.assign(experts(), 0), layer.forced.assign(experts(), 0), layer.mixes.resize(experts()),
        layer.unit_masks.resize(experts());
  }
  const Pass native = run(device(), {});
  expect_same(native, run(device(), {}));
  expect_same(native, run(device(), identity));
}

TEST(CudaBackend, EditsActAsOnTheCpuBackend) {
  std::vector<std::pair<std::string, Recipe>> recipes;
  const auto edit = [&](const std::string& name, const std::function<void(LayerRecipe&)>& change) {
    Recipe recipe = empty_recipe();
    change(recipe.layers[0]);
    recipes.emplace_back(name, recipe);
  };
  edit("mute and force", [](LayerRecipe& layer) {
    layer.muted.assign(experts(), 0), layer.forced.assign(experts(), 0);
    layer.muted[1] = 1, layer.forced[2] = 1;
  });
  edit("biases, temperature, scale, k", [](LayerRecipe& layer) {
    layer.k = 3, layer.temperature = 1.5f;
    layer.logit_bias.assign(experts(), 0.0f), layer.expert_scale.assign(experts(), 0.5f),
        layer.row_scale.assign(experts(), 1.2f);
    layer.logit_bias[0] = 1;
  });
  edit("swap and unit mask", [](LayerRecipe& layer) {
    layer.mixes.resize(experts()), layer.unit_masks.resize(experts());
    layer.mixes[0] = {{3, 1.0f}}, layer.mixes[3] = {{0, 1.0f}};
    layer.unit_masks[3] = {0, 2, 5}, layer.unit_masks[1] = {1};
  });
  for (const auto& [name, parameters] :
       {std::pair<std::string, std::map<std::string, SchemeValue>>{"top_p", {{"p", 0.95}}},
        {"adamoe", {}},
        {"dense_to_sparse", {{"gumbel", true}}},
        {"random", {{"seed", 4.0}}},
        {"hash", {{"k", 2.0}}},
        {"dynmole", {{"h", 0.5}}}})
    edit(name, [&](LayerRecipe& layer) { layer.scheme = *make_scheme({name, parameters}); });
  const Pass native = run(device(), {});
  for (const auto& [name, recipe] : recipes) {
    SCOPED_TRACE(name);
    const Pass edited = run(device(), recipe);
    const Difference difference = compare(edited, run(*model().cpu, recipe));
    EXPECT_EQ(difference.sets, 0) << difference;
    EXPECT_LT(difference.logits, 2e-4) << difference;
    EXPECT_FALSE(same_bits(native.logits, edited.logits));
    EXPECT_EQ(edited.frames[0].layer(0).stats.lse, native.frames[0].layer(0).stats.lse);
  }
  expect_same(native, run(device(), {}));  // nothing stays behind
}

TEST(CudaBackend, TheLevelOfCaptureChangesNoNumber) {
  const auto ids = text(6);
  std::vector<float> logits;
  for (const CaptureLevel level :
       {CaptureLevel::kLogits, CaptureLevel::kOff, CaptureLevel::kIds, CaptureLevel::kWeights}) {
    const auto cache = device().new_cache(32);
    Pass all = model().forward(device(), *cache, std::span(ids).first(4), {}, level);
    for (size_t i = 4; i < 6; ++i) {
      const Pass one = model().forward(device(), *cache, {&ids[i], 1}, {}, level);
      all.logits.insert(all.logits.end(), one.logits.begin(), one.logits.end());
    }
    if (logits.empty()) logits = all.logits;
    EXPECT_TRUE(same_bits(logits, all.logits));
    EXPECT_EQ(all.frames[2].used_ids(0).empty(), level == CaptureLevel::kOff);
  }
}

TEST(CudaBackend, BranchesAndRewindsAreExact) {
  const auto ids = text(70);  // over the end of a block
  const auto straight = device().new_cache(128);
  model().forward(device(), *straight, std::span(ids).first(66));
  const auto branch = straight->clone();
  const Pass after = model().forward(device(), *straight, {&ids[66], 1});
  const Pass other = model().forward(device(), *branch, {&ids[69], 1});
  EXPECT_FALSE(same_bits(after.logits, other.logits));
  expect_same(after, [&] {
    EXPECT_EQ(branch->truncate(66), 66);
    return model().forward(device(), *branch, {&ids[66], 1});
  }());
  EXPECT_EQ(straight->truncate(66), 66);
  expect_same(after, model().forward(device(), *straight, {&ids[66], 1}));
}

TEST(CudaBackend, APromptGivesTheSameBitsInAnyPieces) {
  for (const std::string name : {"olmoe_bf16", "deepseek_v3_bf16", "gpt_oss_bf16"}) {
    SCOPED_TRACE(name);
    const OpenModel own = OpenModel::open(name);
    const auto backend = own.device({}, 128);
    std::vector<TokenId> ids;
    for (int i = 0; i < 70; ++i) ids.push_back(TokenId((i * 31 + 7) % own.plan().vocab));
    const auto whole = backend->new_cache(128), parts = backend->new_cache(128);
    Pass all = own.forward(*backend, *whole, ids), pieces;
    for (size_t at = 0; at < ids.size();) {
      const size_t count = std::min<size_t>(at == 0 ? 3 : 67, ids.size() - at);
      Pass part = own.forward(*backend, *parts, std::span(ids).subspan(at, count));
      pieces.logits.insert(pieces.logits.end(), part.logits.begin(), part.logits.end());
      for (RoutingFrame& frame : part.frames) pieces.frames.push_back(std::move(frame));
      at += count;
    }
    expect_same(all, pieces);
  }
}

TEST(CudaBackend, TheDeviceChoosesTokensAsTheHostDoes) {
  const auto prompt = text(4);
  for (const Sampling sampling :
       {Sampling{}, Sampling{.greedy = false, .temperature = 0.8f, .top_p = 0.9f, .seed = 5}}) {
    const auto stepped = device().new_cache(64), ahead = device().new_cache(64);
    Pass pass = model().forward(device(), *stepped, prompt);
    std::vector<float> logits(pass.logits.end() - model().plan().vocab, pass.logits.end());
    std::vector<TokenId> expected{sample(logits, sampling, 0, 4)};
    std::vector<RoutingFrame> expected_frames;
    for (uint64_t index = 5; index < 13; ++index) {
      pass = model().forward(device(), *stepped, {&expected.back(), 1});
      expected_frames.push_back(pass.frames[0]);
      expected.push_back(sample(pass.logits, sampling, 0, index));
    }
    model().forward(device(), *ahead, prompt);
    std::vector<RoutingFrame> frames(8, make_frame(model().plan(), {}, CaptureLevel::kLogits));
    const auto chosen = value_of(device().decode(
        *ahead, {}, expected[0], 8,
        {sampling.greedy, sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed}, 0, frames));
    EXPECT_EQ(chosen, std::vector<TokenId>(expected.begin() + 1, expected.end()));
    EXPECT_EQ(ahead->length(), 12);
    for (size_t t = 0; t < frames.size(); ++t)
      EXPECT_TRUE(std::ranges::equal(frames[t].arena(), expected_frames[t].arena())) << "token " << t;
  }
}

TEST(CudaBackend, ExpertsInHostMemoryGiveTheSameBits) {
  const auto part = model().device({.keys = Stored::kF32, .room = device().weight_bytes().first / 2}, 256);
  EXPECT_GT(part->weight_bytes().second, 0u);
  EXPECT_NE(part->info().detail.find("of experts in host memory"), std::string::npos) << part->info().detail;
  EXPECT_EQ(device().weight_bytes().second, 0u);
  expect_same(run(device(), {}), run(*part, {}));
}

TEST(CudaBackend, KeysInHalfPrecisionStayClose) {
  const auto halves = model().device({.keys = Stored::kBF16}, 256);
  const Difference difference = compare(run(*halves, {}), run(*model().cpu, {}));
  EXPECT_GT(difference.logits, 0);
  EXPECT_LT(difference.logits, 0.02) << difference;
}

TEST(CudaBackend, ManyTokensGoAroundTheRing) {
  const auto ids = text(40);
  const auto cache = device().new_cache(128);
  const Pass first = model().forward(device(), *cache, ids, {}, CaptureLevel::kLogits, LogitRows::kLast);
  // The ring has room for 1024 tokens.
  for (int turn = 0; turn < 26; ++turn) {
    cache->truncate(0);
    const Pass again = model().forward(device(), *cache, ids, {}, CaptureLevel::kLogits, LogitRows::kLast);
    expect_same(first, again);
  }
}

TEST(CudaBackend, RefusesByNameWhatItLacks) {
  const auto cache = device().new_cache(64);
  const auto refusal = [&](const Recipe& recipe, std::vector<TokenId> ids) {
    const auto done =
        device().forward({.tokens = ids, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kNone});
    EXPECT_FALSE(done);
    EXPECT_EQ(cache->length(), 0);
    return done ? Error() : done.error();
  };
  Recipe recipe = empty_recipe();
  recipe.layers[0].others.resize(experts());
  recipe.layers[0].others[1].kind = ExpertKind::kIdentity;
  const Error other = refusal(recipe, text(1));
  EXPECT_EQ(other.code, ErrorCode::kUsage);
  EXPECT_NE(other.message().find("the cuda backend lacks experts of another kind"), std::string::npos)
      << other.message();
  EXPECT_NE(other.message().find("--backend cpu"), std::string::npos);
  recipe = empty_recipe();
  recipe.adapters.resize(size_t(places_of(model().plan())));
  EXPECT_NE(refusal(recipe, text(1)).message().find("the cuda backend lacks adapters"), std::string::npos);
  EXPECT_TRUE(missing_on_cuda(OpenModel::open("gpt_oss").plan()).empty());
  EXPECT_NE(missing_on_cuda(OpenModel::open("olmoe_dynamic").plan()).find("grows"), std::string::npos);
}

TEST(CudaBackend, SaysBeforeLoadingThatTheCardIsTooSmall) {
  limit_device_memory(uint64_t(1) << 30);
  const auto made = make_backend_on_device(model().plan(), model().weights, {.context = 64}, {}, nullptr);
  limit_device_memory(uint64_t(8) << 30);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kMemory);
  for (const char* word : {"weights", "keys and values", "reserve", "are free", "--backend cpu"})
    EXPECT_NE(made.error().message().find(word), std::string::npos) << made.error().message();
}

TEST(CudaBackend, ADeadDeviceEndsTheBackendNotTheProgram) {
  const auto doomed = model().device({}, 64);
  const auto cache = doomed->new_cache(64);
  const auto ids = text(3);
  model().forward(*doomed, *cache, ids);
  fail_next_wait();
  const Recipe native;
  const ForwardRequest request{.tokens = ids, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone};
  const auto failed = doomed->forward(request);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kDevice);
  EXPECT_NE(failed.error().message().find("cudaStreamSynchronize"), std::string::npos) << failed.error().message();
  EXPECT_EQ(cache->length(), 3);
  const auto again = doomed->forward(request);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().what, failed.error().what);
  expect_same(run(device(), {}), run(device(), {}));  // other backends go on
}

}  // namespace
}  // namespace switchyard::cuda::testing

// Layer routers: the cases of specs/gating-checks.json, numbers of an independent computation (Python, double), and
// files that are not what they should be.
#include <cmath>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/edit.h"
#include "engine/routing/path_router.h"
#include "tests/routing/test_plan.h"
#include "tests/support/gating_checks.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

using test::gating_checks;
using testing::HasSubstr;

TEST(PathRouter, MixesAtABudgetAsTheChecksSay) {
  const auto checks = gating_checks("drllm_budget");
  ASSERT_EQ(checks.size(), 12u);
  for (const auto& check : checks) {
    SCOPED_TRACE(check["id"]);
    const PathProbabilities mixed =
        at_budget(check["inputs"]["probabilities"].get<PathProbabilities>(), check["params"]["p"]);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(mixed[i], check["expected"]["mixed"][i].get<double>(), 1e-9);
    const std::string action = check["expected"]["action"];
    EXPECT_EQ(passes_of(mixed), action == "skip" ? 0 : action == "execute" ? 1 : 2);
  }
}

TEST(PathRouter, PoolsWindowsAsTheChecksSay) {
  const auto checks = gating_checks("drllm_windows");
  ASSERT_EQ(checks.size(), 5u);
  for (const auto& check : checks) {
    SCOPED_TRACE(check["id"]);
    std::vector<float> hidden;
    const auto& rows = check["inputs"]["hidden"];
    for (const auto& row : rows)
      for (const double value : row) hidden.push_back(float(value));
    const PathWindows windows = windows_of(int(rows.size()));
    EXPECT_EQ(windows.count, check["expected"]["windows"]);
    EXPECT_EQ(windows.size, check["expected"]["size"]);
    EXPECT_EQ(windows.used(), check["expected"]["used"]);
    const int d = int(rows[0].size());
    const std::vector<float> means = window_means(hidden, d);
    const auto& want = check["expected"]["means"];
    ASSERT_EQ(means.size(), want.size() * size_t(d));
    for (size_t w = 0; w < want.size(); ++w)
      for (int i = 0; i < d; ++i) {
        const double value = want[w][size_t(i)];
        EXPECT_NEAR(means[w * size_t(d) + size_t(i)], value, 2e-6 * std::max(1.0, std::abs(value)));
      }
  }
}

PathRouter small_router() {
  return {.width = 2,
          .l1 = {0.5f, -1, 2, 0.25f},
          .l1_bias = {0.1f, -0.2f},
          .l2 = {1, -0.5f, 0.3f, 0.8f, -0.7f, 0.2f},
          .l2_bias = {0.05f, 0, -0.1f}};
}

// Token i is [(7i mod 5) / 2 - 1, (3i mod 7) / 3 - 1].
std::vector<float> small_hidden(int tokens) {
  std::vector<float> hidden;
  for (int i = 0; i < tokens; ++i) hidden.insert(hidden.end(), {float(i * 7 % 5) / 2 - 1, float(i * 3 % 7) / 3 - 1});
  return hidden;
}

TEST(PathRouter, AveragesTheLogitsOfTheWindows) {
  const auto near = [](const PathProbabilities& got, const PathProbabilities& want) {
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], want[i], 1e-7);
  };
  near(probabilities_of(small_router(), small_hidden(19), 2),
       {0.3798888122930632, 0.3483328325374282, 0.27177835516950855});
  near(probabilities_of(small_router(), small_hidden(3), 2),
       {0.24369615788816826, 0.4880863906179236, 0.268217451493908});
}

// A file of F32 tensors under these names and shapes, all 1.
std::string file_of(const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string body;
  for (const auto& [name, shape] : tensors) {
    const size_t begin = body.size();
    int64_t count = 1;
    for (const int64_t side : shape) count *= side;
    const std::vector<float> ones(size_t(count), 1.0f);
    body.append(reinterpret_cast<const char*>(ones.data()), ones.size() * sizeof(float));
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, body.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[size_t(i)] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return out + text + body;
}

using Tensors = std::vector<std::pair<std::string, std::vector<int64_t>>>;
const Tensors kSound = {{"layers.1.drllm.l1.weight", {5, 4}},
                        {"layers.1.drllm.l1.bias", {5}},
                        {"layers.1.drllm.l2.weight", {3, 5}},
                        {"layers.1.drllm.l2.bias", {3}}};

TEST(PathRouter, ReadsAFileAndBecomesAnEdit) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "routers.safetensors").string();
  std::ofstream(path, std::ios::binary) << file_of(kSound);
  const auto routers = read_path_routers(path);
  ASSERT_TRUE(routers) << routers.error().message();
  EXPECT_EQ((*routers)->hidden, 4);
  ASSERT_EQ((*routers)->layers.size(), 1u);
  EXPECT_EQ((*routers)->layers.at(1).width, 5);
  const ModelPlan plan = test::small_plan();
  const auto script =
      parse_script(R"({"edits":[{"kind":"layer_path","routers":")" + path + R"(","budget":0.25}]})", plan);
  ASSERT_TRUE(script) << script.error().message();
  const auto& edit = std::get<LayerPath>(script->at(0).edit);
  EXPECT_TRUE(edit.chooser);
  EXPECT_EQ(edit.chooser.budget, 0.25);
  EXPECT_EQ(describe(edit), "Choose the layers by the routers of " + path + ", budget +0.25");
  const auto again = parse_script(to_json_script(*script), plan);
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *script);
  Recipe recipe;
  apply(edit, plan, recipe);
  EXPECT_FALSE(recipe.is_identity());
  EXPECT_THAT(invert(LayerPath{}, plan, recipe), testing::ElementsAre(Edit(edit)));
}

TEST(PathRouter, RefusesFilesByName) {
  struct Case {
    Tensors tensors;
    const char* message;
  };
  const auto with = [](size_t at, std::pair<std::string, std::vector<int64_t>> tensor) {
    Tensors tensors = kSound;
    tensors[at] = std::move(tensor);
    return tensors;
  };
  const Case cases[] = {
      {{}, "holds no layer router"},
      {with(0, {"layers.1.drllm.l3.weight", {5, 4}}), "\"layers.1.drllm.l3.weight\" is no tensor of a layer router"},
      {with(0, {"layers.x.drllm.l1.weight", {5, 4}}), "is no tensor of a layer router"},
      {with(0, {"layers.1.gate.proto", {5, 4}}), "is no tensor of a layer router"},
      {with(0, {"layers.1.drllm.l1.weight", {20}}), "has shape [20], needs two axes"},
      {with(1, {"layers.1.drllm.l1.bias", {4}}), "\"layers.1.drllm.l1.bias\" has 4 values, needs 5 x 1"},
      {with(2, {"layers.1.drllm.l2.weight", {2, 5}}), "\"layers.1.drllm.l2.weight\" has 10 values, needs 3 x 5"},
      {{kSound.begin(), kSound.end() - 1}, "\"layers.1.drllm.l2.bias\" has 0 values, needs 3 x 1"},
      {{kSound.begin() + 1, kSound.end()}, "\"layers.1.drllm.l1.weight\" is missing"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.message);
    const TemporaryFolder folder;
    const std::string path = (folder.path() / "routers.safetensors").string();
    std::ofstream(path, std::ios::binary) << file_of(bad.tensors);
    const auto routers = read_path_routers(path);
    ASSERT_FALSE(routers);
    EXPECT_EQ(routers.error().code, ErrorCode::kMalformed);
    EXPECT_THAT(routers.error().message(), HasSubstr(bad.message));
  }
  EXPECT_EQ(read_path_routers("/nowhere/routers.safetensors").error().code, ErrorCode::kNotFound);
}

TEST(PathRouter, FitsTheModelOrIsRefused) {
  const ModelPlan plan = test::small_plan();
  auto routers = std::make_shared<PathRouters>();
  routers->hidden = 4;
  routers->layers[3] = {};
  const auto problem = [&](double budget = 0) {
    const auto fits =
        validate(LayerPath{.passes = {}, .chooser = {.file = "r", .budget = budget, .routers = routers}}, plan);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(problem(), "");
  EXPECT_THAT(problem(1.5), HasSubstr("budget is 1.5, needs -1 to 1"));
  EXPECT_THAT(problem(std::nan("")), HasSubstr("needs -1 to 1"));
  routers->layers[4] = {};
  EXPECT_THAT(problem(), HasSubstr("there is a router of layer 4; the model has layers 0 to 3"));
  routers->layers.erase(4);
  routers->hidden = 8;
  EXPECT_THAT(
      problem(),
      HasSubstr(
          "the layer routers read 8 values, the model's layers have 4: layers.0.drllm.l1.weight needs shape [128, 4]"));
}

}  // namespace
}  // namespace switchyard

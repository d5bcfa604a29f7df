// Files of schemes: read back as written, whole, and fitting the model.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/expert_kind.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/slices.h"
#include "engine/routing/stages.h"
#include "tests/routing/scheme_support.h"

namespace switchyard {
namespace {

TEST(SchemeFiles, OfABankAreReadBackAndFitTheModel) {
  SchemeFile file;
  file.layers[2].bank = {.exemplars = {3, 2, {1, 2, 3, 4, 5, 6}}, .labels = {0, 3, 0}, .predictions = {0, 3, 1}, .classes = {{0, {1, 2}}, {3, {0.5f}}}};
  const std::string path = ::testing::TempDir() + "/bank.safetensors";
  const auto write = [&] { std::ofstream(path, std::ios::binary) << scheme_file_bytes(file); };
  write();
  const auto scheme = make_scheme({"sdm", {{"file", path}}});
  ASSERT_TRUE(scheme.has_value()) << scheme.error().message();
  const SdmBank& bank = scheme->file->layers.at(2).bank;
  EXPECT_EQ(bank.exemplars.values, file.layers[2].bank.exemplars.values);
  EXPECT_EQ(bank.labels, file.layers[2].bank.labels);
  EXPECT_EQ(bank.predictions, file.layers[2].bank.predictions);
  ASSERT_EQ(bank.classes.size(), 2u);
  EXPECT_EQ(bank.classes[1].expert, 3);
  EXPECT_EQ(bank.classes[0].distances, (Floats{1, 2}));
  const auto refused = [&](int layer, int experts, int64_t width) {
    const auto fits = check_scheme(scheme->of_layer(layer), spec_of(experts, 1), width, 10);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(2, 4, 2), "");
  EXPECT_EQ(refused(1, 4, 2), "scheme sdm: the file has no sdm.exemplars of this layer");
  EXPECT_EQ(refused(2, 4, 5), "scheme sdm: the file's sdm.exemplars of this layer is [3, 2], needed [3, 5]");
  EXPECT_EQ(refused(2, 3, 2), "scheme sdm: the file's exemplars name expert 3, the router has 3");
  file.layers[2].bank.labels.pop_back();
  write();
  const auto read = read_scheme_file(path);
  ASSERT_FALSE(read.has_value());
  EXPECT_THAT(read.error().message(), testing::HasSubstr("layers.2.sdm.labels is [2], needed [3]"));
}

TEST(SchemeFiles, OfARecurrentRouterAreWholeAndFitTheModel) {
  std::mt19937 random(37);
  const LayerRecipe recipe = any_recurrent(4, random);
  const std::string path = ::testing::TempDir() + "/recurrent.safetensors";
  const auto write = [&](const SchemeFile& file) { std::ofstream(path, std::ios::binary) << scheme_file_bytes(file); };
  write(*recipe.scheme.file);
  const auto scheme = make_scheme({"recurrent", {{"file", path}}});
  ASSERT_TRUE(scheme.has_value()) << scheme.error().message();
  for (size_t part = 0; part < 6; ++part) {
    EXPECT_EQ(scheme->file->gru.weight[part].values, recipe.scheme.file->gru.weight[part].values);
    EXPECT_EQ(scheme->file->gru.bias[part], recipe.scheme.file->gru.bias[part]);
  }
  EXPECT_EQ(scheme->file->layers.at(0).to_state.values, recipe.scheme.data->to_state.values);
  EXPECT_EQ(scheme->file->layers.at(0).from_state.values, recipe.scheme.data->from_state.values);
  const auto refused = [&](int layer, int experts, int64_t width) {
    const auto fits = check_scheme(scheme->of_layer(layer), spec_of(experts, 1), width, 10);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(0, 4, kWidth), "");
  EXPECT_EQ(refused(1, 4, kWidth), "scheme recurrent: the file has no rmoe.w1 of this layer; needed [5, 16]");
  EXPECT_EQ(refused(0, 4, 32), "scheme recurrent: the file's rmoe.w1 of this layer is [5, 16], needed [5, 32]");
  EXPECT_EQ(refused(0, 6, kWidth), "scheme recurrent: the file's rmoe.w2 of this layer is [4, 5], needed [6, 5]");

  SchemeFile broken = *recipe.scheme.file;
  broken.gru.weight[kStateUpdate] = {};
  write(broken);
  auto read = read_scheme_file(path);
  ASSERT_FALSE(read.has_value());
  EXPECT_THAT(read.error().message(), testing::HasSubstr("rmoe.gru.hz.weight is [0, 0], needed [5, 5]"));
  broken = *recipe.scheme.file;
  broken.gru.bias[kInNew].pop_back();
  broken.layers.clear();
  write(broken);
  EXPECT_FALSE(read_scheme_file(path).has_value());
  write({});
  EXPECT_THAT(check_scheme(make_scheme({"recurrent", {{"file", path}}})->of_layer(0), spec_of(4, 1), kWidth, 10).error().message(),
              testing::HasSubstr("the file has no rmoe.gru"));
}

// Of one file they go on from layer to layer; a layer of another file begins at 0.
TEST(RouterStates, GoOnThroughTheLayersOfOneFile) {
  std::mt19937 random(41);
  Scheme a = any_recurrent(4, random).scheme, b = a;
  a.choice.parameters["file"] = std::string("a"), b.choice.parameters["file"] = std::string("b");
  RouterStates states;
  states.begin();
  states.prepare(a, 3);
  EXPECT_THAT(states.of(2), testing::ElementsAre(0, 0, 0, 0, 0));
  states.of(1)[4] = 7;
  states.prepare(a, 3);
  EXPECT_EQ(states.of(1)[4], 7);
  states.prepare(b, 3);
  EXPECT_EQ(states.of(1)[4], 0);
  states.of(1)[4] = 7;
  states.begin();
  states.prepare(b, 2);
  EXPECT_EQ(states.of(1)[4], 0);
}

TEST(SchemeFiles, AreReadBackAsWrittenAndCheckedAgainstTheModel) {
  SchemeFile file;
  file.layers[3] = {.table = {1, 2, 0, 3}, .columns = 2, .prototypes = {1, 2, 3, 4, 5, 6}, .width = 3, .thresholds = {0.25f, 0.5f}};
  file.every.thresholds = {0.1f, 0.2f};
  const std::string path = ::testing::TempDir() + "/scheme.safetensors";
  std::ofstream(path, std::ios::binary) << scheme_file_bytes(file);
  const auto read = read_scheme_file(path);
  ASSERT_TRUE(read.has_value()) << read.error().message();
  const SchemeData& layer = (*read)->layers.at(3);
  EXPECT_EQ(layer.table, file.layers[3].table);
  EXPECT_EQ(layer.columns, 2);
  EXPECT_EQ(layer.prototypes, file.layers[3].prototypes);
  EXPECT_EQ(layer.width, 3);
  EXPECT_EQ(layer.thresholds, file.layers[3].thresholds);
  EXPECT_EQ((*read)->every.thresholds, file.every.thresholds);

  const auto refused = [&](const char* name, int layer_of, int experts, int64_t hidden, int64_t vocab) {
    const auto scheme = make_scheme({name, {{"file", path}}});
    EXPECT_TRUE(scheme.has_value());
    const auto fits = check_scheme(scheme->of_layer(layer_of), spec_of(experts, 1), hidden, vocab);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused("hash", 3, 4, 3, 2), "scheme hash: the file has 2 thresholds, the router 4 experts");
  EXPECT_THAT(refused("hash", 3, 4, 3, 5), testing::HasSubstr("has 2 token ids, the model 5"));
  EXPECT_THAT(refused("hash", 3, 3, 3, 2), testing::HasSubstr("names expert 3, the router has 3"));
  EXPECT_THAT(refused("hash", 4, 4, 3, 2), testing::HasSubstr("no table for this layer"));
  EXPECT_EQ(refused("prototype", 3, 2, 3, 2), "");
  EXPECT_THAT(refused("prototype", 3, 2, 4, 2), testing::HasSubstr("are [2, 3], needed [2, 4]"));

  for (const char* broken : {"", "short", "\xff\xff\xff\xff\xff\xff\xff\x7f{}"}) {
    std::ofstream(path, std::ios::binary) << broken;
    EXPECT_FALSE(read_scheme_file(path).has_value());
  }
}

}  // namespace
}  // namespace switchyard

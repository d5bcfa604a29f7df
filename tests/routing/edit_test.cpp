// Edits: each kind applies, inverts exactly, describes itself, tags a drag and travels through JSON.
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/edit.h"
#include "tests/routing/test_plan.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const ModelPlan kPlan = test::small_plan();

LayerSet layers(std::vector<int> list) { return {std::move(list)}; }

Recipe applied(std::initializer_list<Edit> edits) {
  Recipe recipe;
  for (const Edit& edit : edits) apply(edit, kPlan, recipe);
  return recipe;
}

// Some different experts of the smallest layer, in any order.
std::vector<ExpertId> some_members(std::mt19937_64& random, size_t count) {
  std::vector<ExpertId> ids{0, 1, 2, 3, 4, 5};
  std::shuffle(ids.begin(), ids.end(), random);
  ids.resize(count);
  return ids;
}

RowSource random_row(std::mt19937_64& random) {
  using Kind = RowSource::Kind;
  switch (random() % 4) {
    case 0: return {};
    case 1: return {Kind::kCopy, ExpertId(random() % 6)};
    case 2: return {Kind::kRotate, ExpertId(random() % 6), float(random() % 5) * 22.5f};
    default: return {Kind::kValues, kNoExpert, 0, std::make_shared<std::vector<float>>(4, float(random() % 3) - 0.1f)};
  }
}

ExpertMix random_mix(std::mt19937_64& random) {
  ExpertMix mix;
  for (ExpertId id = 0; id < 6; ++id)
    if (random() % 3 == 0) mix.push_back({id, random() % 3 ? 0.3f * float(1 + random() % 4) : 1.0f});
  return mix;
}

// Two adapters on the q_proj and one on the k_proj of every layer.
std::string adapter_file() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    std::vector<NamedTensor> tensors;
    for (int layer = 0; layer < 4; ++layer)
      for (const auto& [module, rows, count] : {std::tuple{"q_proj", 3, 2}, std::tuple{"k_proj", 2, 1}})
        for (int e = 0; e < count; ++e) {
          const std::string name = "lora.model.layers." + std::to_string(layer) + ".self_attn." + module + "." + std::to_string(e);
          tensors.push_back({name + ".A", {1, 4}, {1, 2, 3, 4}});
          tensors.push_back({name + ".B", {rows, 1}, std::vector<float>(size_t(rows), 1.0f)});
        }
    put_file(folder.path() / "adapters.safetensors", safetensors_of(tensors));
    return (folder.path() / "adapters.safetensors").string();
  }();
  return path;
}

SetAdapters random_adapters(std::mt19937_64& random) {
  SetAdapters edit;
  if (random() % 2) edit.layers.layers = {0, int(1 + random() % 3)};
  if (random() % 2) edit.modules = {random() % 2 ? "q_proj" : "self_attn.k_proj"};
  if (random() % 3)
    edit.adapters.set = *make_adapters({{adapter_file()}, random() % 2 ? "arrow" : "fixed", {{"scale", double(random() % 3)}}}, edit.layers.layers, edit.modules, kPlan);
  return edit;
}

// Any edit that fits the plan by itself, of every kind.
Edit random_edit(std::mt19937_64& random) {
  LayerSet where;
  if (random() % 4)
    for (int layer = 1; layer < 4; ++layer)
      if (random() % 2) where.layers.push_back(layer);
  std::vector<ExpertId> experts;
  for (ExpertId id = 0; id < 6; ++id)
    if (random() % 3 == 0) experts.push_back(id);
  if (experts.empty()) experts.push_back(ExpertId(random() % 6));
  const float value = float(int(random() % 9) - 4) / 4;  // 0 and 1, the neutral values, among them
  switch (random() % 20) {
    case 17: return SetExpertKind{where, experts, std::array{ExpertKind::kOwn, ExpertKind::kIdentity, ExpertKind::kNull}[random() % 3]};
    case 18: return random_adapters(random);
    case 19: {
      std::vector<uint8_t> passes(4);
      for (uint8_t& n : passes) n = uint8_t(random() % 3);
      if (random() % 4 == 0) passes.clear();
      else if (passes == std::vector<uint8_t>(4, 0)) passes[0] = 1;
      return LayerPath{passes};
    }
    case 16: return Swap{where, some_members(random, 2)};
    case 11: {
      const size_t count = 2 + random() % 3;
      std::vector<float> weights;
      if (random() % 2)
        for (size_t i = 0; i < count; ++i) weights.push_back(0.5f + float(random() % 4));
      return Merge{where, some_members(random, count), weights};
    }
    case 12: return Clone{where, some_members(random, 2 + random() % 2)};
    case 13: return Replace{where, experts, random_mix(random)};
    case 14: {
      std::vector<int> neurons;
      for (int unit = 0; unit < 6; ++unit)
        if (random() % 3 == 0) neurons.push_back(unit);
      return NeuronMask{where, experts, neurons};
    }
    case 15: return RouterRow{where, experts, 1, random_row(random)};
    case 0: return Mute{where, experts};
    case 1: return Unmute{where, experts};
    case 2: return Force{where, experts};
    case 3: return Unforce{where, experts};
    case 4: return Bias{where, experts, value};
    case 5: return SelectBias{where, experts, value};
    case 6: return ExpertScale{where, experts, value};
    case 7: return TopK{where, int(random() % 7)};
    case 8: return Temperature{where, 0.25f + float(random() % 4) / 4};
    case 9: {
      const SchemeChoice choices[] = {{"", {}},
                                      {"top_p", {{"p", 0.25 + double(random() % 3) / 4}, {"renorm", true}}},
                                      {"adamoe", {{"null_source", std::string("constant")}}},
                                      {"steer", {{"on", std::vector<int>{int(random() % 6)}}}},
                                      {"expert_choice", {}}};
      return SetScheme{where, *make_scheme(choices[random() % 5])};
    }
    default: return RouterRow{where, experts, value};
  }
}

// A layer of jetmoe has a router in its attention, and then its feed-forward's.
ModelPlan two_router_plan() {
  ModelPlan plan;
  plan.hidden = 4;
  plan.layers.resize(3);
  for (LayerPlan& layer : plan.layers) {
    MixtureAttentionSpec attention;
    attention.router.experts = 8;
    attention.router.experts_per_token = 2;
    MoeSpec moe;
    moe.router.experts = 6;
    moe.router.experts_per_token = 2;
    moe.expert.width = 6;
    layer.sublayers = {{.op = attention}, {.op = moe}};
  }
  number_rows(plan);
  return plan;
}

TEST(Edits, OfALayerWithTwoRoutersNameOneOfThem) {
  const ModelPlan plan = two_router_plan();
  const auto script = [&](const std::string& entry) { return parse_script(R"({"schema":1,"edits":[)" + entry + "]}", plan); };
  const auto rows = [&](const std::string& entry) {
    const auto commands = script(entry);
    EXPECT_TRUE(commands) << (commands ? "" : commands.error().message());
    Recipe recipe;
    if (commands) apply((*commands)[0].edit, plan, recipe);
    std::vector<int> touched;
    for (int row = 0; row < int(plan.rows.size()); ++row)
      if (recipe.layer(row)) touched.push_back(row);
    return touched;
  };
  EXPECT_THAT(rows(R"({"kind":"mute","layer":1,"expert":5})"), ElementsAre(3));
  EXPECT_THAT(rows(R"({"kind":"mute","layer":1,"expert":5,"router":"mlp"})"), ElementsAre(3));
  EXPECT_THAT(rows(R"({"kind":"mute","layer":1,"expert":7,"router":"attention"})"), ElementsAre(2));
  EXPECT_THAT(rows(R"({"kind":"top_k","layer":"all","k":1,"router":"attention"})"), ElementsAre(0, 2, 4));
  EXPECT_THAT(rows(R"({"kind":"top_k","layer":"1-2","k":1})"), ElementsAre(3, 5));
  // The attention has 8 experts, the feed-forward 6.
  EXPECT_EQ(script(R"({"kind":"mute","layer":1,"expert":7})").error().code, ErrorCode::kMalformed);
  EXPECT_THAT(script(R"({"kind":"neuron_mask","layer":1,"expert":7,"neurons":[0],"router":"attention"})").error().message(),
              HasSubstr("no hidden layer"));
  for (int row = 0; row < 6; ++row) EXPECT_EQ(layer_of_row(plan, row), (LayerSet{{row / 2}, row % 2 == 0}));

  // Both routers of a layer, back from JSON and undone.
  Recipe recipe;
  apply(TopK{LayerSet{}, 1}, plan, recipe);
  apply(Bias{LayerSet{{0, 2}, true}, {7}, 0.5f}, plan, recipe);
  std::vector<EditCommand> commands;
  for (Edit& edit : edits_of(recipe, plan)) commands.push_back({edit, {}});
  const auto again = parse_script(to_json_script(commands), plan);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(*again, commands);
  Recipe made;
  for (const EditCommand& command : *again) apply(command.edit, plan, made);
  EXPECT_EQ(made.layers, recipe.layers);
  const Edit last = Temperature{LayerSet{{0}, true}, 2.0f};
  apply(last, plan, made);
  for (const Edit& edit : invert(last, plan, recipe)) apply(edit, plan, made);
  EXPECT_EQ(made.layers, recipe.layers);
  EXPECT_EQ(describe(last), "Router temperature 2 in the attention of layer 0");
  EXPECT_NE(tag(last), tag(Temperature{LayerSet{{0}}, 2.0f}));
}

TEST(EditProperties, ApplyThenInvertGivesTheRecipeBefore) {
  std::mt19937_64 random(11);
  std::array<int, std::variant_size_v<Edit>> seen{};
  for (int sequence = 0; sequence < 300; ++sequence) {
    Recipe recipe;
    for (int step = 0; step < 20; ++step) {
      const Edit edit = random_edit(random);
      ++seen[edit.index()];
      const Recipe before = recipe;
      apply(edit, kPlan, recipe);
      Recipe undone = recipe;
      for (const Edit& inverse : invert(edit, kPlan, before)) {
        ASSERT_TRUE(validate(inverse, kPlan)) << to_json({inverse, {}});
        apply(inverse, kPlan, undone);
      }
      ASSERT_EQ(undone.layers, before.layers) << to_json({edit, {}});
      ASSERT_EQ(undone.adapters, before.adapters) << to_json({edit, {}});
      ASSERT_EQ(undone.path, before.path) << to_json({edit, {}});
    }
  }
  EXPECT_THAT(seen, testing::Each(testing::Gt(100)));
}

TEST(EditProperties, EditsOfARecipeMakeItFromNative) {
  std::mt19937_64 random(12);
  for (int sequence = 0; sequence < 300; ++sequence) {
    Recipe recipe, again;
    for (int step = 0; step < 15; ++step) apply(random_edit(random), kPlan, recipe);
    for (const Edit& edit : edits_of(recipe, kPlan)) apply(edit, kPlan, again);
    ASSERT_EQ(again.layers, recipe.layers);
    ASSERT_EQ(again.adapters, recipe.adapters);
    ASSERT_EQ(again.path, recipe.path);
  }
  EXPECT_TRUE(edits_of({}, kPlan).empty());
}

TEST(EditProperties, JsonKeepsEveryKind) {
  std::mt19937_64 random(13);
  std::array<int, std::variant_size_v<Edit>> seen{};
  for (int turn = 0; turn < 2000; ++turn) {
    EditCommand command{random_edit(random), {}};
    if (random() % 2) command.at_token = random() % 1000;
    if (std::holds_alternative<LayerPath>(command.edit)) command.at_token.reset();
    // Alone it must fit, so edits that force too many or mute all are left to another test.
    if (!validate(command.edit, kPlan, Recipe{})) continue;
    ++seen[command.edit.index()];
    const auto again = parse_script(to_json_script({command}), kPlan);
    ASSERT_TRUE(again) << again.error().message();
    ASSERT_THAT(*again, ElementsAre(command)) << to_json(command);
  }
  EXPECT_THAT(seen, testing::Each(testing::Gt(20)));
  // Rows in all their forms and mixes of any weights, which the turns above may miss.
  for (int turn = 0; turn < 300; ++turn) {
    const EditCommand command{turn % 2 ? Edit(RouterRow{{}, {1}, 1, random_row(random)}) : Edit(Replace{{}, {1}, random_mix(random)}), {}};
    const auto again = parse_script(to_json_script({command}), kPlan);
    ASSERT_TRUE(again) << again.error().message();
    ASSERT_THAT(*again, ElementsAre(command)) << to_json(command);
  }
}

TEST(Edit, WritesTheDecimalThatTheUserTyped) {
  EXPECT_EQ(to_json({Bias{layers({3}), {5}, 0.1f}, {}}), R"({"kind":"bias","layer":3,"expert":5,"value":0.1})");
  EXPECT_EQ(to_json({Mute{{}, {1, 2}}, 10}), R"({"kind":"mute","layer":"all","expert":[1,2],"at_token":10})");
  EXPECT_EQ(to_json({TopK{layers({1, 2}), 2}, {}}), R"({"kind":"top_k","layer":[1,2],"k":2})");
}

TEST(Edit, LeavesAnIdentityRecipeWhenTheLastEditIsTakenBack) {
  EXPECT_TRUE(applied({Mute{{}, {1}}, Bias{{}, {2}, 1}, Unmute{{}, {1}}, Bias{{}, {2}, 0}}).layers.empty());
  EXPECT_TRUE(applied({Temperature{{}, 2}, Temperature{{}, 1}}).is_identity());
  const Recipe one = applied({Mute{layers({2}), {1}}});
  EXPECT_EQ(one.layer(0), nullptr);
  EXPECT_NE(one.layer(1), nullptr);
}

TEST(Edit, ALayerPathIsSetAsAWhole) {
  const auto read = [](const char* layers) {
    return parse_script(std::string(R"({"edits":[{"kind":"layer_path","layers":)") + layers + R"(,"at_token":0}]})", kPlan).value().at(0).edit;
  };
  const Edit twice = read(R"(["0-1",1,3])");
  EXPECT_EQ(twice, Edit(LayerPath{{1, 2, 0, 1}}));
  EXPECT_EQ(describe(twice), "Run the layers 0, 1, 1, 3");
  EXPECT_EQ(to_json({twice, {}}), R"({"kind":"layer_path","layers":[0,1,1,3]})");
  EXPECT_EQ(read(R"("all")"), Edit(LayerPath{}));
  EXPECT_EQ(to_json({LayerPath{}, {}}), R"({"kind":"layer_path","layers":"all"})");
  EXPECT_EQ(describe(LayerPath{}), "Run every layer once");
  EXPECT_EQ(tag(twice), "") << "each change of the path is an undo step of its own";

  const Recipe recipe = applied({Mute{layers({1}), {3}}, twice, LayerPath{{0, 1, 1, 1}}});
  EXPECT_EQ(recipe.path.passes, (std::vector<uint8_t>{0, 1, 1, 1}));
  EXPECT_FALSE(applied({twice}).is_identity());
  EXPECT_TRUE(applied({twice, LayerPath{{1, 1, 1, 1}}}).is_identity()) << "once each is the model itself";
  EXPECT_EQ(applied({twice}).layer(0), nullptr) << "the routers are native";
  EXPECT_THAT(invert(LayerPath{}, kPlan, recipe), ElementsAre(Edit(LayerPath{{0, 1, 1, 1}})));
}

TEST(Edit, MutingEndsForcingAndTheOtherWayRound) {
  const Recipe forced = applied({Force{layers({1}), {3}}});
  const Recipe muted = applied({Force{layers({1}), {3}}, Mute{layers({1}), {3}}});
  EXPECT_TRUE(muted.layers[0].forced.empty());
  EXPECT_EQ(muted.layers[0].muted[3], 1);
  EXPECT_THAT(invert(Mute{layers({1}), {3}}, kPlan, forced),
              ElementsAre(Edit(Unmute{layers({1}), {3}}), Edit(Force{layers({1}), {3}})));
  EXPECT_THAT(invert(Force{layers({1}), {3}}, kPlan, muted),
              ElementsAre(Edit(Unforce{layers({1}), {3}}), Edit(Mute{layers({1}), {3}})));
}

TEST(Edit, ReadsAsASentence) {
  EXPECT_EQ(describe(Mute{layers({5}), {12}}), "Mute expert 12 in layer 5");
  EXPECT_EQ(describe(Mute{{}, {1, 2, 3, 7}}), "Mute experts 1-3, 7 in all layers");
  EXPECT_EQ(describe(TopK{layers({6, 7}), 2}), "Top-k 2 in layers 6, 7");
  EXPECT_EQ(describe(TopK{{}, 0}), "Top-k as the model has it in all layers");
  EXPECT_EQ(describe(Bias{layers({3}), {5}, -0.5f}), "Bias expert 5 by -0.5 in layer 3");
  EXPECT_EQ(describe(Temperature{layers({2, 3, 4, 5}), 0.7f}), "Router temperature 0.7 in layers 2-5");
  EXPECT_EQ(describe(ExpertScale{layers({3}), {5}, 0}), "Scale the output of expert 5 by 0 in layer 3");
  EXPECT_EQ(describe(Swap{layers({3}), {5, 2}}), "Swap the weights of experts 5 and 2 in layer 3");
  EXPECT_EQ(describe(Merge{layers({3}), {5, 2, 1}, {}}), "Merge experts 5, 2, 1 into expert 5 in layer 3");
  EXPECT_EQ(describe(Merge{{}, {5, 2}, {1, 3}}), "Merge experts 5, 2 into expert 5 in all layers with weights 1, 3");
  EXPECT_EQ(describe(Clone{layers({3}), {5, 2, 1}}), "Clone expert 5 over experts 2, 1 in layer 3");
  EXPECT_EQ(describe(Replace{layers({3}), {5}, {{1, 0.5f}, {2, 0.5f}}}),
            "Run 0.5 × expert 1 + 0.5 × expert 2 in the place of expert 5 in layer 3");
  EXPECT_EQ(describe(Replace{layers({3}), {5}, {}}), "Give expert 5 its own weights back in layer 3");
  EXPECT_EQ(describe(NeuronMask{layers({3}), {5}, {0, 1, 2, 4}}), "Switch neurons 0-2, 4 of expert 5 off in layer 3");
  EXPECT_EQ(describe(RouterRow{layers({3}), {5}, 1, RowSource{RowSource::Kind::kRotate, 2, 30}}),
            "Rotate the router row of expert 5 by 30° towards expert 2 in layer 3");
}

// Each acts on what runs in the places at that moment; the router, and what is set per place, stays.
TEST(Edit, SwapsMergesAndClonesWhatRunsInThePlaces) {
  const auto mixes = [](std::initializer_list<Edit> edits) { return applied(edits).layers[0]; };
  const LayerSet one = layers({1});
  EXPECT_EQ(mixes({Swap{one, {5, 2}}}).mix(5), (ExpertMix{{2, 1}}));
  EXPECT_EQ(mixes({Swap{one, {5, 2}}}).mix(2), (ExpertMix{{5, 1}}));
  EXPECT_TRUE(applied({Swap{one, {5, 2}}, Swap{one, {2, 5}}}).layers.empty());
  // A cycle of three: 0 runs 1, 1 runs 2, 2 runs 0.
  const LayerRecipe cycle = mixes({Swap{one, {0, 1}}, Swap{one, {1, 2}}});
  EXPECT_EQ(cycle.mix(0), (ExpertMix{{1, 1}}));
  EXPECT_EQ(cycle.mix(1), (ExpertMix{{2, 1}}));
  EXPECT_EQ(cycle.mix(2), (ExpertMix{{0, 1}}));
  const LayerRecipe clone = mixes({Swap{one, {0, 1}}, Clone{one, {0, 3, 4}}});
  EXPECT_EQ(clone.mix(3), (ExpertMix{{1, 1}}));
  EXPECT_EQ(clone.mix(4), (ExpertMix{{1, 1}}));
  EXPECT_TRUE(mixes({Swap{one, {0, 1}}, Clone{one, {0, 1}}}).mix(1).empty());  // its own, by way of 0
  const LayerRecipe merged = mixes({Swap{one, {0, 1}}, Merge{one, {0, 2}, {3, 1}}, NeuronMask{one, {0}, {4}}});
  EXPECT_EQ(merged.mix(0), (ExpertMix{{1, 0.75f}, {2, 0.25f}}));
  EXPECT_EQ(merged.muted, (std::vector<uint8_t>{0, 0, 1, 0, 0, 0, 0, 0}));
  EXPECT_EQ(merged.unit_mask(0), std::vector{4});
  // Half of (3/4 of 1, 1/4 of 2) and half of 2.
  const LayerRecipe again = mixes({Merge{one, {1, 2}, {3, 1}}, Unmute{one, {2}}, Merge{one, {1, 2}, {}}});
  EXPECT_EQ(again.mix(1), (ExpertMix{{1, 0.375f}, {2, 0.625f}}));
  EXPECT_TRUE(applied({RouterRow{{}, {2}, 1, RowSource{RowSource::Kind::kCopy, 2}}}).layers.empty());
}

TEST(Edit, AMergeThatMutesTheRestIsRefusedWhereNothingIsLeft) {
  const Recipe first_muted = applied({Mute{layers({3}), {0}}});
  EXPECT_TRUE(validate(Merge{layers({3}), {1, 2, 3, 4, 5}, {}}, kPlan, first_muted));
  EXPECT_FALSE(validate(Merge{layers({3}), {0, 1, 2, 3, 4, 5}, {}}, kPlan, first_muted));
}

TEST(Edit, TagsADragByKindAndPlaceOnly) {
  EXPECT_EQ(tag(Bias{layers({3}), {5}, 1}), "bias/3/5");
  EXPECT_EQ(tag(Bias{layers({3}), {5}, 1}), tag(Bias{layers({3}), {5}, 2}));
  EXPECT_NE(tag(Bias{layers({3}), {5}, 1}), tag(SelectBias{layers({3}), {5}, 1}));
  EXPECT_NE(tag(TopK{{}, 1}), tag(TopK{layers({1}), 1}));
  EXPECT_NE(tag(RouterRow{{}, {1}, 2}), tag(RouterRow{{}, {1}, 1, RowSource{}}));
  EXPECT_EQ(tag(Swap{{}, {1, 2}}), "");  // twice is not once
}

TEST(Edit, RefusesWhatWouldLeaveALayerWithoutExperts) {
  const Recipe most = applied({Mute{layers({3}), {0, 1, 2, 3, 4}}});
  EXPECT_TRUE(validate(Mute{layers({3}), {0, 1, 2, 3, 4}}, kPlan, Recipe{}));
  const auto last = validate(Mute{layers({3}), {5}}, kPlan, most);
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, ErrorCode::kUsage);
  EXPECT_THAT(last.error().message(), HasSubstr("layer 3 would have no expert left: all 6 are muted"));
}

TEST(Edit, RefusesMoreForcedExpertsThanATokenTakes) {
  const auto three = validate(Force{layers({1}), {0, 1, 2}}, kPlan, Recipe{});
  ASSERT_FALSE(three);
  EXPECT_THAT(three.error().message(), HasSubstr("layer 1 would have 3 forced experts, a token takes 2"));
  EXPECT_TRUE(validate(Force{layers({1}), {0, 1, 2}}, kPlan, applied({TopK{{}, 3}})));
  EXPECT_FALSE(validate(TopK{layers({1}), 1}, kPlan, applied({Force{{}, {0, 1}}})));
}

struct Refused {
  const char* entry;
  ErrorCode code;
  const char* message;
};

// specs/cli.md, edit script: what is refused, with which exit code.
TEST(EditScript, RefusesByPositionAndSaysWhy) {
  const Refused cases[] = {
      {R"({"kind":"frobnicate","layer":1})", ErrorCode::kMalformed, "unknown kind \"frobnicate\""},
      {R"({"layer":1})", ErrorCode::kMalformed, "needs \"kind\""},
      {R"(5)", ErrorCode::kMalformed, "an entry is an object"},
      {R"({"kind":"mute","layer":0,"expert":1})", ErrorCode::kMalformed, "layer 0 has no experts"},
      {R"({"kind":"mute","layer":"0-2","expert":1})", ErrorCode::kMalformed, "layer 0 has no experts"},
      {R"({"kind":"mute","layer":4,"expert":1})", ErrorCode::kMalformed, "there is no layer 4"},
      {R"({"kind":"mute","layer":-1,"expert":1})", ErrorCode::kMalformed, "layer is -1, out of range"},
      {R"({"kind":"mute","layer":1.5,"expert":1})", ErrorCode::kMalformed, "needs an integer"},
      {R"({"kind":"mute","layer":"3-2","expert":1})", ErrorCode::kMalformed, "runs backwards"},
      {R"({"kind":"mute","layer":"2-x","expert":1})", ErrorCode::kMalformed, "a range such as"},
      {R"({"kind":"mute","layer":"1-999999999","expert":1})", ErrorCode::kMalformed, "too far"},
      {R"({"kind":"mute","layer":[],"expert":1})", ErrorCode::kMalformed, "empty list"},
      {R"({"kind":"mute","expert":1})", ErrorCode::kMalformed, "needs \"layer\""},
      {R"({"kind":"mute","layer":1})", ErrorCode::kMalformed, "needs \"expert\""},
      {R"({"kind":"mute","layer":3,"expert":6})", ErrorCode::kMalformed, "there is no expert 6 in layer 3"},
      {R"({"kind":"mute","layer":1,"expert":[1,70000]})", ErrorCode::kMalformed, "expert is 70000, out of range"},
      {R"({"kind":"mute","layer":1,"expert":1,"at_tokn":3})", ErrorCode::kMalformed, "mute has no field \"at_tokn\""},
      {R"({"kind":"mute","layer":1,"expert":1,"at_token":-3})", ErrorCode::kMalformed, "at_token is -3"},
      {R"({"kind":"bias","layer":1,"expert":1})", ErrorCode::kMalformed, "needs \"value\""},
      {R"({"kind":"bias","layer":1,"expert":1,"value":"1"})", ErrorCode::kMalformed, "needs a number"},
      {R"({"kind":"bias","layer":1,"expert":1,"value":1e39})", ErrorCode::kMalformed, "needs a finite number"},
      {R"({"kind":"temperature","layer":1,"value":0})", ErrorCode::kMalformed, "needs more than 0"},
      {R"({"kind":"top_k","layer":1,"k":9})", ErrorCode::kUsage, "k is 9, layer 1 has 8 experts"},
      {R"({"kind":"top_k","layer":1,"k":-1})", ErrorCode::kMalformed, "out of range"},
      {R"({"kind":"scheme","layer":1})", ErrorCode::kMalformed, "needs \"name\""},
      {R"({"kind":"scheme","layer":1,"name":"tpo_p"})", ErrorCode::kMalformed, "no gating scheme \"tpo_p\""},
      {R"({"kind":"scheme","layer":1,"name":"top_p","parameters":{"q":1}})", ErrorCode::kMalformed, "no parameter \"q\""},
      {R"({"kind":"scheme","layer":1,"name":"top_p","parameters":{"p":1.5}})", ErrorCode::kMalformed, "p is 1.5, needs 0 to 1"},
      {R"({"kind":"scheme","layer":1,"name":"top_p","parameters":{"k_min":1.5}})", ErrorCode::kMalformed, "needs an integer"},
      {R"({"kind":"scheme","layer":1,"name":"top_p","parameters":{"renorm":"yes"}})", ErrorCode::kMalformed, "needs true or false"},
      {R"({"kind":"scheme","layer":1,"name":"dynmole","parameters":{"entropy":"shannon"}})", ErrorCode::kMalformed, "one of tsallis, renyi"},
      {R"({"kind":"scheme","layer":1,"name":"stable_moe"})", ErrorCode::kUsage, "needs a file"},
      {R"({"kind":"scheme","layer":3,"name":"forced_slot","parameters":{"expert":6}})", ErrorCode::kUsage, "there is no expert 6"},
      {R"({"kind":"scheme","layer":3,"name":"top_k","parameters":{"k":7}})", ErrorCode::kUsage, "the router has 6 experts"},
      {R"({"kind":"layer_path","layers":[0,4]})", ErrorCode::kMalformed, "there is no layer 4; the model has layers 0 to 3"},
      {R"({"kind":"layer_path","layers":[0,2,1]})", ErrorCode::kMalformed, "the path goes back from layer 2 to 1"},
      {R"({"kind":"layer_path","layers":[]})", ErrorCode::kMalformed, "the path names no layer"},
      {R"({"kind":"layer_path","layers":[1,1,1,1,1]})", ErrorCode::kMalformed, "the path runs layer 1 5 times, at most 4"},
      {R"({"kind":"layer_path","layers":["3-1"]})", ErrorCode::kMalformed, "runs backwards"},
      {R"({"kind":"layer_path","layer":[1]})", ErrorCode::kMalformed, "layer_path takes \"layers\", the whole path"},
      {R"({"kind":"layer_path"})", ErrorCode::kMalformed, "needs \"layers\""},
      {R"({"kind":"layer_path","layers":[1],"at_token":3})", ErrorCode::kUsage, "a layer path holds for a whole sequence and cannot begin at token 3"},
      {R"({"kind":"router_row","layer":3,"expert":1,"copy_from":6})", ErrorCode::kMalformed, "there is no expert 6 in layer 3"},
      {R"({"kind":"router_row","layer":3,"expert":1})", ErrorCode::kMalformed, "needs one of \"scale\", \"values\""},
      {R"({"kind":"router_row","layer":3,"expert":1,"scale":2,"copy_from":1})", ErrorCode::kMalformed, "needs one of"},
      {R"({"kind":"router_row","layer":3,"expert":1,"rotate_towards":2})", ErrorCode::kMalformed, "go together"},
      {R"({"kind":"router_row","layer":3,"expert":1,"scale":2,"angle":2})", ErrorCode::kMalformed, "go together"},
      {R"({"kind":"router_row","layer":3,"expert":1,"values":[1,2,3]})", ErrorCode::kMalformed, "values has 3 numbers, a router row of this model has 4"},
      {R"({"kind":"router_row","layer":3,"expert":1,"values":[1,2,3,1e39]})", ErrorCode::kMalformed, "needs a finite number"},
      {R"({"kind":"swap","layer":1,"experts":[1,2,3]})", ErrorCode::kMalformed, "swap takes two experts, here are 3"},
      {R"({"kind":"swap","layer":1,"experts":[2,2]})", ErrorCode::kMalformed, "swap names an expert twice"},
      {R"({"kind":"swap","layer":"all","experts":[2,7]})", ErrorCode::kMalformed, "there is no expert 7 in layer 3"},
      {R"({"kind":"swap","layer":1,"expert":[2,7]})", ErrorCode::kMalformed, "swap has no field \"expert\""},
      {R"({"kind":"clone","layer":1,"experts":[2]})", ErrorCode::kMalformed, "clone takes two or more experts, here are 1"},
      {R"({"kind":"clone","layer":1,"experts":[2,3],"weights":[1,1]})", ErrorCode::kMalformed, "clone has no field \"weights\""},
      {R"({"kind":"merge","layer":1,"experts":[2,3],"weights":[1]})", ErrorCode::kMalformed, "there are 1 weights for 2 experts"},
      {R"({"kind":"merge","layer":1,"experts":[2,3],"weights":[1,-1]})", ErrorCode::kMalformed, "the weights add up to 0"},
      {R"({"kind":"replace","layer":1,"expert":1,"from":[2,2]})", ErrorCode::kMalformed, "from names expert 2 twice"},
      {R"({"kind":"replace","layer":1,"expert":1,"from":[2],"weights":[0]})", ErrorCode::kMalformed, "all weights are 0"},
      {R"({"kind":"replace","layer":1,"expert":1})", ErrorCode::kMalformed, "needs \"from\""},
      {R"({"kind":"neuron_mask","layer":1,"expert":1,"neurons":[6]})", ErrorCode::kMalformed, "there is no neuron 6 in the experts of layer 1; they have 0 to 5"},
      {R"({"kind":"neuron_mask","layer":1,"expert":1,"neurons":3})", ErrorCode::kMalformed, "needs \"neurons\", a list"},
      {R"({"kind":"mute","layer":1,"expert":1,"router":"attention"})", ErrorCode::kUsage, "one router"},
      {R"({"kind":"mute","layer":1,"expert":1,"router":"x"})", ErrorCode::kMalformed, "router is \"x\""},
      {R"({"kind":"mute","layer":3,"expert":[0,1,2,3,4,5]})", ErrorCode::kUsage, "no expert left"},
      {R"({"kind":"force","layer":1,"expert":[0,1,2]})", ErrorCode::kUsage, "3 forced experts"},
  };
  for (const Refused& bad : cases) {
    SCOPED_TRACE(bad.entry);
    const std::string script = std::string(R"({"schema":1,"edits":[{"kind":"mute","layer":1,"expert":7},)") + bad.entry + "]}";
    std::vector<ScriptProblem> problems;
    const auto parsed = parse_script(script, kPlan, &problems);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code, bad.code);
    EXPECT_EQ(parsed.error().where, "edits[1]");
    EXPECT_THAT(parsed.error().message(), HasSubstr(bad.message));
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].entry, 1);
  }
}

TEST(EditScript, RefusesDocumentsThatAreNoScript) {
  for (const char* text : {"", "[]", "{}", R"({"schema":2,"edits":[]})", R"({"edits":{}})", R"({"edits":[],"edit":[]})",
                           R"({"edits":[{"kind":"top_k","k":1,"k":2,"layer":1}]})", "{\"edits\":[\"\xff\"]}"}) {
    std::vector<ScriptProblem> problems;
    const auto parsed = parse_script(text, kPlan, &problems);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kMalformed);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].entry, -1);
  }
}

TEST(EditScript, NamesAllProblemsAndTheFirstMalformedOneLeads) {
  std::vector<ScriptProblem> problems;
  const auto parsed = parse_script(R"({"schema":1,"edits":[{"kind":"top_k","layer":1,"k":9},{"kind":"mute","layer":1,"expert":0},{"kind":"x"}]})",
                                   kPlan, &problems);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].entry, 0);
  EXPECT_EQ(problems[1].entry, 2);
  EXPECT_EQ(parsed.error().code, ErrorCode::kMalformed);
  EXPECT_EQ(parsed.error().where, "edits[2]");
}

TEST(EditScript, ReadsLayersInAllFourForms) {
  const auto parsed = parse_script(
      R"({"schema":1,"edits":[{"kind":"top_k","layer":2,"k":1},{"kind":"top_k","layer":[3,1],"k":1},
          {"kind":"top_k","layer":"2-3","k":1,"router":"mlp"},{"kind":"top_k","layer":"all","k":1,"at_token":4}]})",
      kPlan);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_THAT(*parsed, ElementsAre(EditCommand{TopK{layers({2}), 1}, {}}, EditCommand{TopK{layers({1, 3}), 1}, {}},
                                   EditCommand{TopK{layers({2, 3}), 1}, {}}, EditCommand{TopK{{}, 1}, 4}));
}

// The later entry takes effect first: one expert muted at 0, the rest at token 5, is refused there.
TEST(EditScript, ChecksEntriesInTheOrderInWhichTheyTakeEffect) {
  std::vector<ScriptProblem> problems;
  EXPECT_FALSE(parse_script(R"({"edits":[{"kind":"mute","layer":3,"expert":[0,1,2,3,4],"at_token":5},{"kind":"mute","layer":3,"expert":5}]})",
                            kPlan, &problems));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].entry, 0);
}

}  // namespace
}  // namespace switchyard

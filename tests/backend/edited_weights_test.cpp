// Edits of weights (swap, merge, clone, replace, neuron_mask, router_row) against checkpoints whose tensors this test
// changed on disk: the recipe on the original must give what the changed checkpoint gives. What a tensor should hold is
// computed here from the words of specs/cli.md.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <numbers>

#include "engine/routing/edit.h"
#include "tests/backend/disk_model.h"
#include "tests/backend/harness.h"
#include "tests/support/temporary_folder.h"

namespace switchyard::testing {
namespace {

const std::vector<TokenId> kTokens{3, 17, 5, 44, 9, 31, 2, 60, 12, 7, 28, 51};

// How a family names the tensors of its experts.
struct Names {
  std::string golden, module;
  std::vector<std::string> parts;  // the last is the down projection
  std::string expert(int layer, int id, const std::string& part) const {
    return "model.layers." + std::to_string(layer) + "." + module + ".experts." + std::to_string(id) + "." + part + ".weight";
  }
  std::string router(int layer) const { return "model.layers." + std::to_string(layer) + "." + module + ".gate.weight"; }
};

const Names kMixtral{"mixtral", "block_sparse_moe", {"w1", "w3", "w2"}};
const Names kOlmoeBf16{"olmoe_bf16", "mlp", {"gate_proj", "up_proj", "down_proj"}};

using Change = std::function<void(DiskModel&, const Names&, int layer)>;
struct Case {
  std::string name;
  Edit edit;
  Change change;
};

void copy_expert(DiskModel& to, const DiskModel& from, const Names& names, int layer, int source, int target) {
  for (const std::string& part : names.parts)
    to.tensors[names.expert(layer, target, part)] = from.tensors.at(names.expert(layer, source, part));
}

Change merged(std::vector<int> ids, std::vector<double> weights) {
  return [=](DiskModel& model, const Names& names, int layer) {
    double total = 0;
    for (const double weight : weights) total += weight;
    for (const std::string& part : names.parts) {
      Stored& out = model.tensors[names.expert(layer, ids[0], part)];
      std::vector<double> sums(out.values.size());
      for (size_t i = 0; i < ids.size(); ++i)
        for (size_t v = 0; v < sums.size(); ++v)
          sums[v] += weights[i] / total * model.tensors[names.expert(layer, ids[i], part)].values[v];
      for (size_t v = 0; v < sums.size(); ++v) out.values[v] = float(sums[v]);
    }
  };
}

Change with_row(std::function<std::vector<float>(const std::vector<std::vector<float>>& rows)> row_of_5) {
  return [=](DiskModel& model, const Names& names, int layer) {
    Stored& router = model.tensors[names.router(layer)];
    const auto width = size_t(router.shape[1]);
    std::vector<std::vector<float>> rows;
    for (size_t at = 0; at < router.values.size(); at += width)
      rows.emplace_back(router.values.begin() + long(at), router.values.begin() + long(at + width));
    const std::vector<float> row = row_of_5(rows);
    std::copy(row.begin(), row.end(), router.values.begin() + long(5 * width));
  };
}

std::vector<float> some_values(size_t count) {
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) values.push_back(float(i % 7) * 0.25f - 0.75f);
  return values;
}

// By Rodrigues: along the unit vector of the row and the unit vector square to it on the other's side.
std::vector<float> rotated(const std::vector<float>& row, const std::vector<float>& towards, double degrees) {
  double rr = 0, rt = 0;
  for (size_t i = 0; i < row.size(); ++i) rr += double(row[i]) * row[i], rt += double(row[i]) * towards[i];
  std::vector<double> square(row.size());
  double ss = 0;
  for (size_t i = 0; i < row.size(); ++i) square[i] = towards[i] - rt / rr * row[i], ss += square[i] * square[i];
  std::vector<float> out;
  const double angle = degrees / 180 * std::numbers::pi;
  for (size_t i = 0; i < row.size(); ++i)
    out.push_back(float(std::sqrt(rr) * (std::cos(angle) * row[i] / std::sqrt(rr) + std::sin(angle) * square[i] / std::sqrt(ss))));
  return out;
}

std::vector<Case> cases(int hidden) {
  using Kind = RowSource::Kind;
  const auto row = [](RowSource source) { return RouterRow{{}, {5}, 1, std::move(source)}; };
  return {
      {"swap", Swap{{}, {1, 4}},
       [](DiskModel& m, const Names& n, int layer) {
         const DiskModel before = m;
         copy_expert(m, before, n, layer, 1, 4);
         copy_expert(m, before, n, layer, 4, 1);
       }},
      {"clone", Clone{{}, {2, 5, 6}},
       [](DiskModel& m, const Names& n, int layer) {
         const DiskModel before = m;
         copy_expert(m, before, n, layer, 2, 5);
         copy_expert(m, before, n, layer, 2, 6);
       }},
      {"merge", Merge{{}, {0, 3, 7}, {}}, merged({0, 3, 7}, {1, 1, 1})},
      {"merge weighted", Merge{{}, {4, 2}, {3, 1}}, merged({4, 2}, {3, 1})},
      {"replace", Replace{{}, {6}, {{1, 0.75f}, {2, -0.5f}}},
       [](DiskModel& m, const Names& n, int layer) {
         for (const std::string& part : n.parts)
           for (size_t v = 0; v < m.tensors[n.expert(layer, 6, part)].values.size(); ++v)
             m.tensors[n.expert(layer, 6, part)].values[v] = float(0.75 * m.tensors[n.expert(layer, 1, part)].values[v] -
                                                                   0.5 * m.tensors[n.expert(layer, 2, part)].values[v]);
       }},
      {"neuron_mask", NeuronMask{{}, {0, 1, 2, 3, 4}, {0, 3, 7}},
       [](DiskModel& m, const Names& n, int layer) {
         for (int id = 0; id < 5; ++id) {
           Stored& down = m.tensors[n.expert(layer, id, n.parts.back())];
           for (int64_t r = 0; r < down.shape[0]; ++r)
             for (const int unit : {0, 3, 7}) down.values[size_t(r * down.shape[1] + unit)] = 0;
         }
       }},
      {"row values", row({Kind::kValues, kNoExpert, 0, std::make_shared<std::vector<float>>(some_values(size_t(hidden)))}),
       with_row([=](const auto&) { return some_values(size_t(hidden)); })},
      {"row copied", row({Kind::kCopy, 2}), with_row([](const auto& rows) { return rows[2]; })},
      {"row rotated", row({Kind::kRotate, 3, 40}), with_row([](const auto& rows) { return rotated(rows[5], rows[3], 40); })},
      {"row rotated far", row({Kind::kRotate, 1, -170}), with_row([](const auto& rows) { return rotated(rows[5], rows[1], -170); })},
  };
}

Recipe recipe_of(const ModelPlan& plan, std::initializer_list<Edit> edits) {
  Recipe recipe;
  for (const Edit& edit : edits) apply(edit, plan, recipe);
  return recipe;
}

Output run(const std::string& model, const std::string& backend_name, const Recipe& recipe) {
  return Sequence(model, backend_name, recipe).feed(kTokens);
}

class EditedWeights : public ::testing::TestWithParam<std::string> {};

TEST_P(EditedWeights, ARecipeGivesWhatAChangedCheckpointGives) {
  for (const Names* names : {&kMixtral, &kOlmoeBf16}) {
    const ModelPlan& plan = checkpoint(names->golden).plan;
    const Output native = run(names->golden, GetParam(), {});
    for (const Case& edit : cases(plan.hidden)) {
      SCOPED_TRACE(names->golden + " " + edit.name);
      ASSERT_TRUE(validate(edit.edit, plan, Recipe{}));
      DiskModel changed(names->golden);
      for (const int layer : plan.moe_layers) edit.change(changed, *names, layer);
      const TemporaryFolder folder;
      changed.save(folder.path());

      const Recipe recipe = recipe_of(plan, {edit.edit});
      Recipe mutes = recipe;  // a file cannot say them
      for (LayerRecipe& layer : mutes.layers) layer = {.muted = layer.muted};
      const Output edited = run(names->golden, GetParam(), recipe), expected = run(folder.path(), GetParam(), mutes);
      EXPECT_LE(largest_difference(edited.logits, expected.logits), 1e-5);
      EXPECT_GT(largest_difference(edited.logits, native.logits), 1e-3) << "the edit changes nothing: the test shows nothing";
      for (size_t t = 0; t < kTokens.size(); ++t)
        for (size_t row = 0; row < plan.moe_layers.size(); ++row) {
          EXPECT_TRUE(std::ranges::equal(edited.frames[t].used_ids(int(row)), expected.frames[t].used_ids(int(row))));
          EXPECT_LE(largest_difference(edited.frames[t].logits(int(row)), expected.frames[t].logits(int(row))), 1e-5);
        }
      EXPECT_TRUE(identical(run(names->golden, GetParam(), {}), native)) << "taken back";
    }
  }
}

// All at once, where they meet: the mask stays with the place, a clone of a merged expert runs the merged one.
TEST_P(EditedWeights, EditsOfOneExpertAddUp) {
  const Names& names = kMixtral;
  const ModelPlan& plan = checkpoint(names.golden).plan;
  const Recipe recipe = recipe_of(plan, {NeuronMask{{}, {1}, {2, 5}}, Swap{{}, {1, 4}}, Merge{{}, {4, 2}, {}}, Clone{{}, {4, 1}},
                                         ExpertScale{{}, {1}, 0.5f}, RouterRow{{}, {1}, 1, RowSource{RowSource::Kind::kCopy, 6}},
                                         RouterRow{{}, {1}, 1.25f}, Unmute{{}, {2}}});
  DiskModel changed(names.golden);
  for (const int layer : plan.moe_layers) {
    const DiskModel before = changed;
    copy_expert(changed, before, names, layer, 1, 4);
    merged({4, 2}, {1, 1})(changed, names, layer);
    copy_expert(changed, changed, names, layer, 4, 1);
    Stored& down = changed.tensors[names.expert(layer, 1, "w2")];
    for (size_t at = 0; at < down.values.size(); ++at) {
      const auto unit = int64_t(at) % down.shape[1];
      down.values[at] = unit == 2 || unit == 5 ? 0 : down.values[at] * 0.5f;
    }
    Stored& router = changed.tensors[names.router(layer)];
    for (int64_t i = 0; i < router.shape[1]; ++i)
      router.values[size_t(router.shape[1] + i)] = router.values[size_t(6 * router.shape[1] + i)] * 1.25f;
  }
  const TemporaryFolder folder;
  changed.save(folder.path());
  EXPECT_LE(largest_difference(run(names.golden, GetParam(), recipe).logits, run(folder.path(), GetParam(), {}).logits), 1e-5);
}

// In pieces and in one: what is merged or replaced does not depend on how many tokens run together.
TEST_P(EditedWeights, DecodeAgreesWithPrefill) {
  const Recipe recipe = recipe_of(checkpoint("demo").plan,
                                  {Merge{{}, {3, 9, 11}, {}}, NeuronMask{{}, {3, 4, 5}, {1, 2, 30, 63}}, Swap{{}, {4, 5}},
                                   RouterRow{{}, {7}, 1, RowSource{RowSource::Kind::kRotate, 8, 25}}});
  const Output whole = Sequence("demo", GetParam(), recipe).feed(kTokens);
  Sequence sequence("demo", GetParam(), recipe);
  for (size_t t = 0; t < kTokens.size(); ++t) {
    const Output one = sequence.feed(std::span(kTokens).subspan(t, 1));
    EXPECT_LE(largest_difference(one.logits, std::span(whole.logits).subspan(t * one.logits.size(), one.logits.size())), 1e-4);
  }
}

// What the native router would have selected is asked of its own rows.
TEST_P(EditedWeights, ChangedCountsAgainstTheRouterAsItWas) {
  const ModelPlan& plan = checkpoint("mixtral").plan;
  const Output native = run("mixtral", GetParam(), {});
  const auto high = std::make_shared<std::vector<float>>(some_values(size_t(plan.hidden)));
  const Output edited = run("mixtral", GetParam(), recipe_of(plan, {RouterRow{{{plan.moe_layers[0]}}, {5}, 1, RowSource{RowSource::Kind::kValues, kNoExpert, 0, high}}}));
  int changed = 0;
  for (size_t t = 0; t < kTokens.size(); ++t) {
    const auto was = native.frames[t].used_ids(0), is = edited.frames[t].used_ids(0);
    int expected = 0;
    for (const ExpertId id : is) expected += std::ranges::find(was, id) == was.end();
    EXPECT_EQ(edited.frames[t].layer(0).changed, expected);
    changed += expected;
  }
  EXPECT_GT(changed, 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, EditedWeights, ::testing::ValuesIn(backend_names()), [](const auto& info) { return info.param; });

#ifdef SWITCHYARD_WITH_REFERENCE
// Biases are merged with their expert, whatever the kind of block; packed tensors are cut by the plan.
TEST(EditedWeightsParity, BothBackendsAgreeOnBiasesAndPackedTensors) {
  for (const std::string model : {"gpt_oss", "gpt_oss_bf16", "deepseek_v3", "qwen3_moe_packed", "demo"}) {
    const ModelPlan& plan = checkpoint(model).plan;
    for (const Recipe& recipe :
         {recipe_of(plan, {Merge{{}, {0, 3}, {1, 2}}}), recipe_of(plan, {Swap{{}, {1, 2}}, Clone{{}, {5, 6}}}),
          recipe_of(plan, {NeuronMask{{}, {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 5}}}),
          recipe_of(plan, {RouterRow{{}, {0}, 1, RowSource{RowSource::Kind::kRotate, 3, 60}}, RouterRow{{}, {1}, 2}})}) {
      const Output a = run(model, "reference", recipe), b = run(model, "cpu", recipe), native = run(model, "cpu", {});
      EXPECT_LE(largest_difference(a.logits, b.logits), 2e-3) << model;
      EXPECT_GT(largest_difference(b.logits, native.logits), 1e-4) << model;
    }
  }
}
#endif

}  // namespace
}  // namespace switchyard::testing

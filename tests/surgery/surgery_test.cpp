// Exported checkpoints: run as they are, they give what the original gives under the edits; everything else is refused
// with its reason and leaves nothing behind. Against transformers: check_transformers.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/base/folder.h"
#include "engine/model/safetensors.h"
#include "engine/surgery/checkpoint_writer.h"
#include "tests/backend/harness.h"
#include "tests/support/temporary_folder.h"

namespace switchyard::testing {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

const std::vector<TokenId> kTokens{3, 17, 5, 44, 9, 31, 2, 60, 12, 7, 28, 51};

std::vector<EditCommand> script_of(std::vector<Edit> edits) {
  std::vector<EditCommand> script;
  for (Edit& edit : edits) script.push_back({std::move(edit), {}});
  return script;
}

Recipe recipe_of(const ModelPlan& plan, const std::vector<Edit>& edits) {
  Recipe recipe;
  for (const Edit& edit : edits) {
    const auto fits = validate(edit, plan, recipe);
    if (!fits) throw std::runtime_error(fits.error().message());
    apply(edit, plan, recipe);
  }
  return recipe;
}

std::vector<float> logits_of(const std::string& model, const Recipe& recipe) {
  Sequence sequence(model, "auto", recipe);
  const ModelPlan& plan = checkpoint(model).plan;
  if (plan.encoder_layers == 0) return sequence.feed(kTokens).logits;
  sequence.encode(kTokens);
  return sequence.feed(std::vector<TokenId>{plan.decoder_start}).logits;
}

// Exports, runs the folder without edits and the original with them. rounding: of 16-bit factors that were folded in.
void expect_same_model(const std::string& model, const std::vector<Edit>& edits, double tolerance = 2e-5) {
  SCOPED_TRACE(model);
  const Checkpoint& original = checkpoint(model);
  const TemporaryFolder folder;
  const auto writer = CheckpointWriter::plan(original, script_of(edits));
  ASSERT_TRUE(writer) << writer.error().message();
  const fs::path target = folder.path() / "edited";
  const auto written = writer->write(target, nullptr);
  ASSERT_TRUE(written) << written.error().message();
  const std::vector<float> exported = logits_of(target.string(), {}), edited = logits_of(model, recipe_of(original.plan, edits));
  EXPECT_LE(largest_difference(exported, edited), tolerance);
  EXPECT_GT(largest_difference(exported, logits_of(model, {})), 1e-5) << "the edits change nothing: the test shows nothing";
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : checkpoint(target.string()).tensors) bytes += tensor.end - tensor.begin;
  EXPECT_EQ(bytes, writer->summary().bytes_after);
}

std::vector<Edit> edits_of_weights() {
  return {Swap{{}, {1, 4}}, Merge{{}, {0, 3}, {3, 1}}, Unmute{{}, {3}}, Clone{{}, {2, 5}}, NeuronMask{{}, {1, 2, 6}, {0, 2, 5}},
          RouterRow{{}, {5}, 1, RowSource{RowSource::Kind::kRotate, 3, 40}}, RouterRow{{}, {6}, 1, RowSource{RowSource::Kind::kCopy, 7}},
          RouterRow{{}, {2}, 0.5f}, ExpertScale{{}, {4}, 2}, Temperature{{}, 2}};
}

TEST(Export, FoldsEditsOfWeightsIn) {
  for (const char* model : {"mixtral", "mixtral_packed", "qwen3_moe_sharded", "olmoe_bf16", "deepseek_v3", "gpt_oss", "demo"})
    expect_same_model(model, edits_of_weights());
}

TEST(Export, TakesMutedExpertsOut) {
  for (const char* model : {"mixtral", "mixtral_sharded", "mixtral_packed", "qwen3_moe", "olmoe_bf16", "gpt_oss", "demo"}) {
    std::vector<Edit> edits{Mute{{}, {1, 6}}, Swap{{}, {1, 2}}, Merge{{}, {3, 0, 5}, {}}};  // 0, 1, 5 and 6 go, 2 runs what 1 was
    expect_same_model(model, edits);
  }
}

TEST(Export, WritesBiasesAndCounts) {
  expect_same_model("gpt_oss", {Bias{{}, {2}, 0.75f}, Bias{{}, {3}, -1.5f}, Temperature{{}, 0.5f}, TopK{{}, 1}});
  expect_same_model("deepseek_v3", {SelectBias{{}, {0, 5}, 0.5f}, TopK{{}, 3}});
  expect_same_model("mixtral", {TopK{{}, 4}, ExpertScale{{}, {1, 2, 3}, 0.3f}});
  expect_same_model("mixtral", {TopK{{}, 6}, Mute{{}, {1, 2, 3}}});  // five are left: a token takes five
}

// Any model there is: one expert of each group, in all layers, goes; or the reason is said.
TEST(Export, TakesExpertsOutOfEveryFamilyOrSaysWhyNot) {
  std::set<std::string> refused;
  int exported = 0;
  for (const auto& entry : fs::directory_iterator(goldens_folder())) {
    const std::string model = entry.path().filename().string();
    if (!entry.is_directory() || !fs::exists(entry.path() / "config.json")) continue;
    if (!open_checkpoint(entry.path().string())) continue;
    const ModelPlan& plan = checkpoint(model).plan;
    const RouterSpec& router = plan.routed(0).router;
#ifndef SWITCHYARD_WITH_REFERENCE
    if (!missing_on_cpu(plan).empty()) continue;  // only the other engine could run what is exported
#endif
    if (router.experts < 3 || router.experts_per_token > router.experts - router.groups) continue;
    Mute mute;
    for (int group = 0; group < router.groups; ++group) mute.experts.push_back(ExpertId(group * (router.experts / router.groups) + 1));
    const auto writer = CheckpointWriter::plan(checkpoint(model), script_of({mute}));
    if (!writer) {
      refused.insert(plan.family);
      EXPECT_EQ(writer.error().code, ErrorCode::kUsage) << model << ": " << writer.error().message();
      std::cout << model << ": " << writer.error().message() << "\n";
      continue;
    }
    ++exported;
    expect_same_model(model, {mute}, 1e-4);
  }
#ifdef SWITCHYARD_WITH_REFERENCE
  EXPECT_GT(exported, 60);
#else
  EXPECT_GT(exported, 30);
#endif
  std::cout << exported << " models exported\n";
}

struct Refused {
  std::string model;
  std::vector<EditCommand> script;
  std::string message;
};

TEST(Export, RefusesWhatTheArchitectureCannotExpress) {
  const std::vector<Refused> cases{
      {"mixtral", script_of({Force{{}, {1}}}), "force: no architecture has"},
      {"mixtral", script_of({Bias{{}, {1}, 1}}), "bias: routers of mixtral have no bias"},
      {"mixtral", script_of({SelectBias{{}, {1}, 1}}), "select_bias: routers of mixtral have no bias for the selection"},
      {"mixtral", {{Mute{{}, {1}}, 5}}, "edits[0]: begins at token 5"},
      {"mixtral", script_of({Mute{{{0}}, {1}}}), "mixtral has one number of experts for all layers"},
      {"mixtral", script_of({TopK{{{0}}, 1}}), "mixtral has one number for all layers"},
      {"deepseek_v3", script_of({Mute{{}, {1}}}), "groups of neighbouring experts"},
      {"deepseek_v3", script_of({Mute{{}, {1, 3, 5, 7}}}), "there would be groups of one"},
      {"mixtral", script_of({SetScheme{{}, *make_scheme({"top_p", {}})}}), "scheme: a checkpoint of mixtral says no other gating rule"},
      {(fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/quantised_models/fp8").string(), script_of({Swap{{}, {1, 2}}}), "quantised weights"},
      {(fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/quantised_models/gguf_mixtral_f16/model.gguf").string(), script_of({Swap{{}, {1, 2}}}), "GGUF"},
  };
  for (const Refused& bad : cases) {
    const auto writer = CheckpointWriter::plan(checkpoint(bad.model), bad.script);
    ASSERT_FALSE(writer) << bad.message;
    EXPECT_EQ(writer.error().code, ErrorCode::kUsage);
    EXPECT_THAT(writer.error().message(), HasSubstr(bad.message));
  }
}

// Two reasons at once are both said.
TEST(Export, NamesEveryReason) {
  const auto writer = CheckpointWriter::plan(checkpoint("mixtral"), script_of({Force{{{0}}, {1}}, Bias{{{1}}, {2}, 1}}));
  ASSERT_FALSE(writer);
  EXPECT_THAT(writer.error().message(), HasSubstr("layer 0: force"));
  EXPECT_THAT(writer.error().message(), HasSubstr("layer 1: bias"));
}

TEST(Export, LeavesNothingBehindWhenItIsStoppedOrInTheWay) {
  const TemporaryFolder folder;
  const auto writer = CheckpointWriter::plan(checkpoint("mixtral"), script_of({Mute{{}, {1}}}));
  ASSERT_TRUE(writer) << writer.error().message();
  Task stopped;
  stopped.cancel();
  const auto cut = writer->write(folder.path() / "a", &stopped);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(fs::is_empty(folder.path()));

  fs::create_directory(folder.path() / "full");
  put_file(folder.path() / "full" / "mine.txt", "mine");
  const auto in_the_way = writer->write(folder.path() / "full", nullptr);
  ASSERT_FALSE(in_the_way);
  EXPECT_EQ(in_the_way.error().code, ErrorCode::kOutput);
  EXPECT_EQ(file_content(folder.path() / "full" / "mine.txt"), "mine");
  EXPECT_FALSE(writer->write(folder.path() / "no" / "such" / "parent", nullptr));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);

  fs::create_directory(folder.path() / "empty");
  EXPECT_TRUE(writer->write(folder.path() / "empty/", nullptr));
  EXPECT_TRUE(fs::exists(folder.path() / "empty" / "config.json"));
}

TEST(Export, KeepsTheRestByteForByteAndSaysWhereItComesFrom) {
  const TemporaryFolder folder;
  const Checkpoint& demo = checkpoint("demo");
  const auto writer = CheckpointWriter::plan(demo, script_of({Mute{{}, {0, 31}}, ExpertScale{{{2}}, {7}, 0.5f}}));
  ASSERT_TRUE(writer) << writer.error().message();
  ASSERT_TRUE(writer->write(folder.path() / "out", nullptr));
  const auto out = open_checkpoint((folder.path() / "out").string());
  ASSERT_TRUE(out);
  const std::string before = file_content(demo.folder / demo.shards[0]), after = file_content(folder.path() / "out" / out->shards[0]);
  const auto bytes = [](const std::string& file, const TensorInfo& tensor) { return std::string_view(file).substr(tensor.begin, tensor.end - tensor.begin); };
  int same = 0;
  for (const TensorInfo& tensor : out->tensors) {
    const std::string& name = tensor.name;
    if (name.find("experts") != name.npos || name.find("mlp.gate") != name.npos) continue;
    ASSERT_EQ(bytes(after, tensor), bytes(before, *demo.find(name))) << name;
    ++same;
  }
  EXPECT_GT(same, 60);
  // Expert 4 of the new model is expert 5 of the old.
  EXPECT_EQ(bytes(after, *out->find("model.layers.3.mlp.experts.4.up_proj.weight")), bytes(before, *demo.find("model.layers.3.mlp.experts.5.up_proj.weight")));
  EXPECT_EQ(file_content(folder.path() / "out" / "tokenizer.json"), file_content(demo.folder / "tokenizer.json"));
  const auto origin = nlohmann::json::parse(file_content(folder.path() / "out" / "switchyard_edits.json"));
  EXPECT_EQ(origin["model"], "demo");
  EXPECT_EQ(origin["edits"][1]["kind"], "expert_scale");
  EXPECT_EQ(origin["experts"][3]["old_ids"].size(), 30u);
  EXPECT_EQ(origin["experts"][3]["old_ids"][4], 5);
}

}  // namespace
}  // namespace switchyard::testing

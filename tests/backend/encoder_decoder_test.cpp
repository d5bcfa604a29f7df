// The cache of an encoder-decoder (goldens of tests/goldens): cutting back inside the decoder repeats bit for bit,
// cutting into the encoder empties it, and undone edits leave no mark on what follows.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/routing/edit.h"
#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

constexpr const char* kBackend = "reference";

class EncoderDecoder : public ::testing::TestWithParam<const char*> {
 protected:
  const nlohmann::json prompt_ = expected(GetParam()).at("prompts").at(1);
  const std::vector<TokenId> source_ = prompt_.at("ids").get<std::vector<TokenId>>();
  const std::vector<TokenId> target_ = prompt_.at("decoder_ids").get<std::vector<TokenId>>();

  // The decoder's tokens [from, to), one by one as it generates; what the last one gave.
  Output decode(Sequence& run, size_t from, size_t to) const {
    Output last;
    for (size_t i = from; i < to; ++i) last = run.feed({&target_[i], 1});
    return last;
  }
};

TEST_P(EncoderDecoder, CuttingBackInsideTheDecoderRepeatsBitForBit) {
  ASSERT_GE(target_.size(), 8u);
  Sequence run(GetParam(), kBackend);
  run.encode(source_);
  const Output want = decode(run, 0, 8);
  const int kept = int(source_.size()) + 3;
  EXPECT_EQ(run.cache().truncate(kept), kept);
  EXPECT_TRUE(identical(want, decode(run, 3, 8)));
  Sequence other(run);
  EXPECT_EQ(other.cache().length(), int(source_.size()) + 8);
  EXPECT_EQ(other.cache().truncate(int(source_.size())), int(source_.size()));
  EXPECT_TRUE(identical(want, decode(other, 0, 8)));
}

TEST_P(EncoderDecoder, CuttingIntoTheEncoderEmptiesTheCache) {
  Sequence run(GetParam(), kBackend), fresh(GetParam(), kBackend);
  run.encode(source_);
  decode(run, 0, 4);
  EXPECT_EQ(run.cache().truncate(int(source_.size()) - 1), 0);
  const std::vector<TokenId> shorter(source_.begin(), source_.end() - 2);
  run.encode(shorter);
  fresh.encode(shorter);
  EXPECT_TRUE(identical(decode(fresh, 0, 4), decode(run, 0, 4)));
}

TEST_P(EncoderDecoder, AnUndoneEditLeavesNoMark) {
  const ModelPlan& plan = checkpoint(GetParam()).plan;
  int row = 0;
  while (plan.encoder_row(row)) ++row;
  Sequence plain(GetParam(), kBackend), edited(GetParam(), kBackend);
  plain.encode(source_);
  edited.encode(source_);
  const Output before = decode(plain, 0, 4);
  const ExpertId chosen = before.frames[0].used_ids(row)[0];
  Recipe muted;
  apply(Mute{{{plan.moe_layers[size_t(row)]}}, {chosen}}, plan, muted);
  decode(edited, 0, 3);
  edited.set_recipe(muted);
  const Output under = decode(edited, 3, 4);
  const auto used = under.frames[0].used_ids(row);
  EXPECT_EQ(std::count(used.begin(), used.end(), chosen), 0);
  edited.set_recipe({});
  edited.cache().truncate(int(source_.size()) + 3);
  EXPECT_TRUE(identical(before, decode(edited, 3, 4)));
}

INSTANTIATE_TEST_SUITE_P(Goldens, EncoderDecoder, ::testing::Values("nllb_moe", "switch_transformers"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard::testing

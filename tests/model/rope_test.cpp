// Rotary embedding against transformers (tests/data/rope, made by make_rope_expected.py).
#include "engine/model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

constexpr double kMixtralTheta = 1e6;  // the default of the class that made the numbers

Result<Rope> rope_of(const Json& config, int head_dim, int context) {
  return read_rope(JsonView(config, "config.json"), RopeKind::kHalf, head_dim, context, kMixtralTheta);
}

TEST(Rope, EqualsTransformersForEveryType) {
  const auto expected =
      parse_json(file_content(SWITCHYARD_SOURCE_DIR "/tests/data/rope/expected.json"), "expected.json");
  ASSERT_TRUE(expected) << expected.error().message();
  ASSERT_GE((*expected)["cases"].size(), 14u);
  for (const Json& c : (*expected)["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const auto rope = rope_of(c["config"], c["head_dim"], c["context"]);
    ASSERT_TRUE(rope) << rope.error().message();
    const auto frequencies = c["inv_freq"].get<std::vector<double>>();
    ASSERT_EQ(rope->spec.inv_freq.size(), frequencies.size());
    EXPECT_EQ(rope->spec.dims, static_cast<int>(2 * frequencies.size()));
    // Both sides work in float32; the last bit of the power function differs, and llama3's blend amplifies it.
    for (size_t i = 0; i < frequencies.size(); ++i)
      EXPECT_NEAR(rope->spec.inv_freq[i], frequencies[i], frequencies[i] * 4e-7) << i;
    EXPECT_NEAR(rope->spec.attention_factor, c["attention_factor"].get<double>(), 1e-6);
  }
}

// The theory, by hand: theta^(-2i/d) for d = 4 and theta = 10,000 is 1 and 1/100; linear divides by the factor.
TEST(Rope, IsTheFormulaInTheSimplestCase) {
  const auto plain = rope_of({{"rope_theta", 10000.0}}, 4, 64);
  ASSERT_TRUE(plain);
  EXPECT_THAT(plain->spec.inv_freq, testing::Pointwise(testing::FloatEq(), std::vector<float>{1.0f, 0.01f}));
  EXPECT_EQ(plain->spec.attention_factor, 1.0f);
  const auto linear =
      rope_of({{"rope_theta", 10000.0}, {"rope_scaling", {{"rope_type", "linear"}, {"factor", 4}}}}, 4, 64);
  ASSERT_TRUE(linear);
  EXPECT_THAT(linear->spec.inv_freq, testing::Pointwise(testing::FloatEq(), std::vector<float>{0.25f, 0.0025f}));
}

TEST(Rope, LongropeEndsWhereItsShortFactorsDo) {
  const Json scaling = {
      {"rope_type", "longrope"}, {"short_factor", {1.0, 2.0}}, {"original_max_position_embeddings", 32}};
  EXPECT_EQ(rope_of({{"rope_scaling", scaling}}, 4, 64)->context, 32);
  EXPECT_EQ(rope_of({{"rope_scaling", scaling}}, 4, 16)->context, 16);
  // Phi's spelling: the original context beside rope_scaling.
  const Json phi = {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0, 2.0}}}},
                    {"original_max_position_embeddings", 8}};
  EXPECT_EQ(rope_of(phi, 4, 64)->context, 8);
}

TEST(Rope, RefusesWhatItCannotCompute) {
  const auto refusal = [](const Json& config, int head_dim = 4) {
    const auto rope = rope_of(config, head_dim, 64);
    return rope ? "accepted" : rope.error().message();
  };
  const auto scaled = [](const Json& scaling) { return Json{{"rope_scaling", scaling}}; };
  using testing::HasSubstr;
  EXPECT_THAT(
      refusal(scaled({{"rope_type", "dynamic"}, {"factor", 2}})),
      HasSubstr(
          "/rope_scaling has the rope type \"dynamic\", supported are default, linear, llama3, yarn and longrope"));
  EXPECT_THAT(
      refusal({{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}, {"rope_type", "proportional"}}}}),
      HasSubstr("\"proportional\""));
  EXPECT_THAT(refusal(scaled({{"rope_type", "linear"}})), HasSubstr("/rope_scaling/factor is missing"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "linear"}, {"factor", 0}})),
              HasSubstr("/rope_scaling/factor is 0, needs a number above 0"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "linear"}, {"factor", 1e-320}})), HasSubstr("not finite"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "longrope"}, {"short_factor", {1.0}}})),
              HasSubstr("has 1 short_factor values, needs 2"));
  EXPECT_THAT(refusal({{"rope_theta", 0}}), HasSubstr("rope_theta 0"));
  EXPECT_THAT(refusal({{"rope_theta", -1}}), HasSubstr("rope_theta -1"));
  EXPECT_THAT(refusal({{"partial_rotary_factor", 0}}), HasSubstr("partial_rotary_factor 0"));
  EXPECT_THAT(refusal({{"partial_rotary_factor", 1.5}}), HasSubstr("partial_rotary_factor 1.5"));
  EXPECT_THAT(refusal({}, 3), HasSubstr("rotate 3 dimensions"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "yarn"}, {"factor", 2}, {"rope_theta", 1}})),
              HasSubstr("needs more than 1"));
}

}  // namespace
}  // namespace switchyard

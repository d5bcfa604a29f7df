// Rotary embedding against transformers (tests/data/rope, made by make_rope_expected.py).
#include "engine/model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

constexpr double kMixtralTheta = 1e6;  // the default of the class that made the numbers

Result<Rope> rope_of(const Json& config, int head_dim, int context) {
  return read_rope(JsonView(config, "config.json"), RopeKind::kHalf, head_dim, context, {.theta = kMixtralTheta});
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

// families.md 1.0: inv = 1 / (ext_i theta^(2i/d)), ext = long_factor iff the sequence is longer than the original.
TEST(Rope, LongropeTakesItsLongFactorsBeyondTheOriginalContext) {
  const Json scaling = {{"rope_type", "longrope"},
                        {"short_factor", {1.0, 2.0}},
                        {"long_factor", {4.0, 8.0}},
                        {"original_max_position_embeddings", 32}};
  const auto rope = rope_of({{"rope_theta", 10000.0}, {"rope_scaling", scaling}}, 4, 64);
  ASSERT_TRUE(rope) << rope.error().message();
  EXPECT_EQ(rope->context, 64);
  using testing::FloatEq;
  using testing::Pointwise;
  const RopeFrequencies within = rope_frequencies(rope->spec, 32), beyond = rope_frequencies(rope->spec, 33);
  EXPECT_THAT(within.inv_freq, Pointwise(FloatEq(), std::vector<float>{1.0f, 0.005f}));
  EXPECT_THAT(beyond.inv_freq, Pointwise(FloatEq(), std::vector<float>{0.25f, 0.00125f}));
  // sqrt(1 + ln 2 / ln 32) = sqrt(1.2)
  EXPECT_FLOAT_EQ(within.attention_factor, std::sqrt(1.2f));
  EXPECT_FLOAT_EQ(beyond.attention_factor, std::sqrt(1.2f));
  // Phi's spelling: the original context beside rope_scaling.
  const Json phi = {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0, 2.0}}, {"long_factor", {4.0, 8.0}}}},
                    {"original_max_position_embeddings", 8}};
  EXPECT_EQ(rope_of(phi, 4, 64)->spec.original, 8);
}

// families.md 1.0: beyond the context theta grows by (factor n / context - (factor - 1))^(d / (d - 2)). By hand, with
// d = 4, factor 2, n = 2 contexts: (4 - 1)^2 = 9, so the second frequency is 1 / sqrt(9 * 10,000).
TEST(Rope, DynamicGrowsWithTheSequenceBeyondTheContext) {
  const auto rope =
      rope_of({{"rope_theta", 10000.0}, {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}}}, 4, 64);
  ASSERT_TRUE(rope) << rope.error().message();
  EXPECT_EQ(rope->context, 128);
  using testing::FloatEq;
  using testing::Pointwise;
  EXPECT_THAT(rope_frequencies(rope->spec, 64).inv_freq, Pointwise(FloatEq(), std::vector<float>{1.0f, 0.01f}));
  EXPECT_THAT(rope_frequencies(rope->spec, 128).inv_freq,
              Pointwise(FloatEq(), std::vector<float>{1.0f, 1.0f / 300.0f}));
}

// families.md 1.18: with d = 4, alpha = 3: theta * 3^2.
TEST(Rope, DynamicWithAlphaIsFixedWhereTheFamilyReadsIt) {
  const Json config = {{"rope_theta", 10000.0}, {"rope_scaling", {{"type", "dynamic"}, {"alpha", 3}, {"factor", 1}}}};
  const auto rope =
      read_rope(JsonView(config, "config.json"), RopeKind::kHalf, 4, 64, {.theta = 1e4, .reads_alpha = true});
  ASSERT_TRUE(rope) << rope.error().message();
  EXPECT_EQ(rope->context, 64);
  EXPECT_THAT(rope_frequencies(rope->spec, 1000).inv_freq,
              testing::Pointwise(testing::FloatEq(), std::vector<float>{1.0f, 1.0f / 300.0f}));
}

TEST(Rope, RefusesWhatItCannotCompute) {
  const auto refusal = [](const Json& config, int head_dim = 4) {
    const auto rope = rope_of(config, head_dim, 64);
    return rope ? "accepted" : rope.error().message();
  };
  const auto scaled = [](const Json& scaling) { return Json{{"rope_scaling", scaling}}; };
  using testing::HasSubstr;
  EXPECT_THAT(
      refusal(scaled({{"rope_type", "proportional"}, {"factor", 2}})),
      HasSubstr(
          "/rope_scaling has the rope type \"proportional\", supported are default, linear, dynamic, llama3, yarn "
          "and longrope"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "dynamic"}})), HasSubstr("factor"));
  EXPECT_THAT(refusal(scaled({{"rope_type", "dynamic"}, {"factor", 0.5}})), HasSubstr("needs at least 1"));
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

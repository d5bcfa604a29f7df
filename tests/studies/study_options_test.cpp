// The tables of options: what they hold by themselves, what they take, and what they refuse with what would fit.
#include <gtest/gtest.h>

#include "engine/studies/study.h"

namespace switchyard {
namespace {

// The message of a refusal; empty where the value is taken.
std::string refusal(const char* study, const char* option, const char* value) {
  StudyOptions options(find_study(study)->options);
  const auto set = options.set(option, value);
  return set ? std::string() : set.error().message();
}

TEST(StudyOptions, StandardsAndSuggestionsFitTheirOwnTable) {
  EXPECT_EQ(studies().size(), 9u);
  for (const StudyInfo& info : studies()) {
    EXPECT_EQ(find_study(info.name), &info);
    StudyOptions options(info.options);
    for (const StudyOption& option : info.options) {
      SCOPED_TRACE(std::string(info.name) + " --" + option.name);
      EXPECT_EQ(options.text(option.name), option.standard);
      for (const char* value : {option.standard, option.suggested}) {
        if (option.kind == OptionKind::kSwitch || *value == '\0') continue;
        EXPECT_EQ(refusal(info.name, option.name, value), "");
      }
      for (const char* choice : option.choices) EXPECT_EQ(refusal(info.name, option.name, choice), "");
      EXPECT_FALSE(std::string(option.help).empty());
    }
  }
}

TEST(StudyOptions, RefuseWithWhatWouldFit) {
  EXPECT_EQ(refusal("traffic", "gpus", "0"), "--gpus: is \"0\", needs a whole number from 1 to 4096.");
  EXPECT_EQ(refusal("traffic", "gpus", ""), "--gpus: is \"\", needs a whole number from 1 to 4096.");
  EXPECT_EQ(refusal("traffic", "gpus", "4x"), "--gpus: is \"4x\", needs a whole number from 1 to 4096.");
  EXPECT_EQ(refusal("cache", "expert-mb", "nan"), "--expert-mb: is \"nan\", needs a number from 0 to 1000000000.");
  EXPECT_EQ(refusal("cache", "scope", "both"), "--scope: is \"both\", needs one of layer, model.");
  EXPECT_NE(refusal("cache", "policies", "lru,mru").find("\"mru\" is no cache policy"), std::string::npos);
  EXPECT_EQ(refusal("capacity", "factors", "1,0"),
            "--factors: holds \"0\", needs numbers from 1e-06 to 1000000, joined by commas.");
  EXPECT_NE(refusal("capacity", "fill", "random").find("Choose among rank-major"), std::string::npos);
  EXPECT_EQ(refusal("affinity", "seed", "18446744073709551615"), "");
  EXPECT_NE(refusal("affinity", "seed", "18446744073709551616"), "");
  EXPECT_NE(refusal("affinity", "seed", "-1"), "");
  EXPECT_NE(refusal("schedule", "gpus", "2").find("It takes --batch, --limit"), std::string::npos);
}

TEST(StudyOptions, HoldWhatWasGivenAndMissWhatIsRequired) {
  StudyOptions options(find_study("affinity")->options);
  EXPECT_FALSE(options.complete());
  EXPECT_NE(options.complete().error().message().find("--gpus: is required"), std::string::npos);
  ASSERT_TRUE(options.set("gpus", "4"));
  ASSERT_TRUE(options.set("coherent", ""));
  ASSERT_TRUE(options.set("load-weight", "0.25"));
  ASSERT_TRUE(options.set("sweeps", ""));  // by size
  EXPECT_TRUE(options.complete());
  EXPECT_EQ(options.number<int>("gpus"), 4);
  EXPECT_EQ(options.number<double>("load-weight"), 0.25);
  EXPECT_EQ(options.number<int>("sweeps"), 0);
  EXPECT_EQ(options.number<int>("restarts"), 2);
  EXPECT_TRUE(options.on("coherent"));
  const StudyOptions factors(find_study("capacity")->options);
  EXPECT_EQ(factors.numbers("factors"), (std::vector<double>{1, 1.25, 1.5, 2}));
}

}  // namespace
}  // namespace switchyard

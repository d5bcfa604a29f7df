// Broken and hostile tokenizer files are refused with a message that says what, where and what was needed.
// Files and messages: tests/data/hostile/tokenizer, made by make_hostile.py.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
const fs::path kFolder = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/hostile/tokenizer";

const Json& cases() {
  static const Json json = Json::parse(std::ifstream(kFolder / "cases.json"));
  return json;
}

class HostileTokenizer : public testing::TestWithParam<size_t> {};

TEST_P(HostileTokenizer, IsRefusedWithItsMessage) {
  const Json& one = cases()[GetParam()];
  const auto loaded = Tokenizer::load(kFolder / one["name"].get<std::string>());
  std::string message;
  if (!loaded) {
    message = loaded.error().message();
  } else {
    ASSERT_TRUE(one.contains("text")) << "loads, but should be refused";
    const auto ids = (*loaded)->encode(one["text"].get<std::string>());
    ASSERT_FALSE(ids);
    message = ids.error().message();
  }
  EXPECT_NE(message.find(one["message"].get<std::string>()), std::string::npos) << message;
  EXPECT_NE(message.find("tokenizer.json"), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Files, HostileTokenizer, testing::Range<size_t>(0, cases().size()),
                         [](const auto& info) { return cases()[info.param]["name"].template get<std::string>(); });

TEST(HostileTokenizers, AreManyEnough) {
  EXPECT_GE(cases().size(), 25u);
}

TEST(Tokenizer, NamesTheMissingFile) {
  const auto loaded = Tokenizer::load("/nowhere");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(loaded.error().where, "/nowhere/tokenizer.json");
}

}  // namespace
}  // namespace switchyard

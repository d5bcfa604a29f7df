// Strict JSON: what is refused, and that every refusal says where. Rules: reliability.md, sections 4 and 5.
#include "engine/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace switchyard {
namespace {

using testing::HasSubstr;

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  const auto parsed = parse_json(text, "a.json", limits);
  return parsed ? "accepted" : parsed.error().message();
}

TEST(Json, ReadsEveryKindOfValue) {
  const auto parsed =
      parse_json(R"( {"a": [1, -2, 3.5, true, null, "x"], "b": {"c": 18446744073709551615}} )", "a.json");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->dump(), R"({"a":[1,-2,3.5,true,null,"x"],"b":{"c":18446744073709551615}})");
}

TEST(Json, RefusesDuplicateKeysWithTheirPath) {
  EXPECT_EQ(refusal(R"({"a": {"b": 1, "b": 1}})"), "a.json: /a/b appears twice");
  EXPECT_EQ(refusal(R"({"l": [0, {"b": 1, "\u0062": 1}]})"), "a.json: /l/1/b appears twice");
}

TEST(Json, RefusesSyntaxErrorsWithTheirByte) {
  EXPECT_THAT(refusal(R"({"a": })"), HasSubstr("not valid JSON at byte 7"));
  EXPECT_THAT(refusal("{} x"), HasSubstr("not valid JSON at byte 4"));
  EXPECT_THAT(refusal(""), HasSubstr("not valid JSON at byte 1"));
  EXPECT_EQ(refusal(std::string_view("{}\0", 3)), "a.json: not valid JSON at byte 3: a NUL");
  EXPECT_THAT(refusal("[NaN]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[1,]"), HasSubstr("not valid JSON"));
}

TEST(Json, RefusesIllFormedUtf8AndQuotesItSafely) {
  const std::string message = refusal("{\"\xff\": 1}");
  EXPECT_THAT(message, HasSubstr("UTF-8"));
  EXPECT_EQ(message.find('\xff'), std::string::npos);
  EXPECT_THAT(refusal(R"(["\ud800"])"), HasSubstr("not valid JSON"));
}

TEST(Json, RefusesNumbersOutOfRange) {
  EXPECT_EQ(refusal("[18446744073709551616]"),
            "a.json: /0 holds the integer 18446744073709551616, which is out of range");
  EXPECT_EQ(refusal("[-9223372036854775809]"),
            "a.json: /0 holds the integer -9223372036854775809, which is out of range");
  EXPECT_THAT(refusal("[1e400]"), HasSubstr("not valid JSON at byte 6"));
}

TEST(Json, DepthIsLimitedExactly) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(64)), "accepted");
  EXPECT_THAT(refusal(nested(65)), HasSubstr("is nested deeper than 64 levels"));
  EXPECT_THAT(refusal(std::string(10'000'000, '[')), HasSubstr("is nested deeper than 64 levels"));
  EXPECT_EQ(refusal(R"({"a":[[1]]})", {.depth = 3}), "accepted");
  EXPECT_THAT(refusal(R"({"a":[[[1]]]})", {.depth = 3}), HasSubstr("/a/0/0 is nested deeper than 3 levels"));
}

TEST(Json, SizeAndValueCountAreLimited) {
  EXPECT_EQ(refusal("[1,2]", {.bytes = 5, .values = 3}), "accepted");
  EXPECT_EQ(refusal("[1,2]", {.bytes = 4}), "a.json: has 5 bytes, more than the limit of 4");
  EXPECT_THAT(refusal("[1,2]", {.values = 2}), HasSubstr("has more than 2 values"));
}

TEST(Json, WhatIsWrittenReadsBackEqual) {
  EXPECT_TRUE(
      rc::check("dump, parse, dump is the identity", [](const std::map<std::string, std::vector<int64_t>>& value) {
        Json json = Json::object();
        for (const auto& [key, numbers] : value) {
          bool ascii = true;
          for (const char c : key) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
          if (ascii) json[key] = numbers;
        }
        const auto parsed = parse_json(json.dump(), "a.json");
        RC_ASSERT(parsed.has_value());
        RC_ASSERT(*parsed == json);
      }));
}

class JsonGetters : public testing::Test {
 protected:
  Json json_ = *parse_json(R"({"n": 7, "big": 18446744073709551615, "r": 1.5, "t": "x", "b": true, "null": null,
                               "l": [1, "two"], "o": {"k": 3}})",
                           "a.json");
  JsonView view_{json_, "a.json"};
};

TEST_F(JsonGetters, GiveTypedValues) {
  EXPECT_EQ(view_.integer("n", 0, 7).value(), 7);
  EXPECT_EQ(view_.number("n").value(), 7.0);
  EXPECT_EQ(view_.number("r").value(), 1.5);
  EXPECT_EQ(view_.text("t").value(), "x");
  EXPECT_TRUE(view_.boolean("b").value());
  EXPECT_EQ(view_.array("l")->at(0).as_integer(0, 9).value(), 1);
  EXPECT_EQ(view_.at("o")->integer("k", 0, 9).value(), 3);
  EXPECT_EQ(view_.at("o")->as_object()->at(0).first, "k");
}

TEST_F(JsonGetters, TreatNullAsAbsent) {
  EXPECT_FALSE(view_.has("null"));
  EXPECT_EQ(view_.integer_or("null", 5, 0, 9).value(), 5);
  EXPECT_EQ(view_.integer("null", 0, 9).error().message(), "a.json: /null is missing");
  EXPECT_EQ(view_.text_or("absent", "d").value(), "d");
  EXPECT_FALSE(view_.boolean_or("absent", false).value());
}

TEST_F(JsonGetters, NamePathFoundAndNeeded) {
  EXPECT_EQ(view_.integer("n", 8, 9).error().message(), "a.json: /n is 7, needs 8 to 9");
  EXPECT_EQ(view_.integer("big", 0, 9).error().message(), "a.json: /big is 18446744073709551615, needs 0 to 9");
  EXPECT_EQ(view_.integer("r", 0, 9).error().message(), "a.json: /r is 1.5, needs an integer");
  EXPECT_EQ(view_.integer("b", 0, 9).error().message(), "a.json: /b is true, needs an integer");
  EXPECT_EQ(view_.boolean("n").error().message(), "a.json: /n is 7, needs true or false");
  EXPECT_EQ(view_.text("o").error().message(), "a.json: /o is an object, needs a string");
  EXPECT_EQ(view_.array("l")->at(1).as_number().error().message(), "a.json: /l/1 is \"two\", needs a number");
  EXPECT_EQ(view_.at("o")->integer("x", 0, 1).error().message(), "a.json: /o/x is missing");
  EXPECT_EQ(view_.array("t").error().code, ErrorCode::kMalformed);
}

}  // namespace
}  // namespace switchyard

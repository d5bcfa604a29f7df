// Ids and texts equal those of the `tokenizers` package (tests/data/tokenizer/goldens.json, made by
// make_goldens.py) and, for the shipped prompts, those of transformers (assets/models/demo/expected.json).
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/tokenizer/support.h"

namespace switchyard {
namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::shared_ptr<const Tokenizer> demo() {
  static const auto tokenizer = load(kSource / "assets/models/demo");
  return tokenizer;
}

const Json& goldens() {
  static const Json json = Json::parse(read(kSource / "tests/data/tokenizer/goldens.json"));
  return json;
}

std::shared_ptr<const Tokenizer> golden_tokenizer(const Json& golden) {
  Json file =
      golden["base"] == "tiny" ? goldens()["tiny"] : Json::parse(read(kSource / "assets/models/demo/tokenizer.json"));
  file.merge_patch(golden["patch"]);
  const ScratchFolder folder(file);
  return load(folder.path());
}

class Golden : public testing::TestWithParam<size_t> {};

TEST_P(Golden, IdsEqualThoseOfTheTokenizersPackage) {
  const Json& golden = goldens()["tokenizers"][GetParam()];
  const auto tokenizer = golden_tokenizer(golden);
  ASSERT_TRUE(tokenizer);
  ASSERT_FALSE(golden["encode"].empty());
  for (const Json& one : golden["encode"]) {
    const std::string text = one.contains("hex") ? from_hex(one["hex"]) : one["text"].get<std::string>();
    const auto ids = tokenizer->encode(text, !one.contains("no_special"));
    ASSERT_TRUE(ids) << ids.error().message();
    EXPECT_EQ(*ids, one["ids"].get<std::vector<TokenId>>()) << one.dump(-1, ' ', true);
  }
}

TEST_P(Golden, TextsEqualThoseOfTheTokenizersPackage) {
  const Json& golden = goldens()["tokenizers"][GetParam()];
  const auto tokenizer = golden_tokenizer(golden);
  ASSERT_TRUE(tokenizer);
  for (const Json& one : golden["decode"]) {
    const auto ids = one["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer->decode(ids), one["text"].get<std::string>()) << one["ids"];
    EXPECT_EQ(tokenizer->decode(ids, true), one["skip"].get<std::string>()) << one["ids"];
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Golden, testing::Range<size_t>(0, goldens()["tokenizers"].size()),
                         [](const auto& info) {
                           return goldens()["tokenizers"][info.param]["name"].template get<std::string>();
                         });

TEST(DemoTokenizer, GivesTheIdsOfTransformersForEveryPrompt) {
  const Json expected = Json::parse(read(kSource / "assets/models/demo/expected.json"));
  ASSERT_EQ(expected["prompts"].size(), 14u);
  for (const auto& [name, prompt] : expected["prompts"].items()) {
    const auto ids = demo()->encode(read(kSource / "assets/prompts" / (name + ".txt")));
    ASSERT_TRUE(ids) << ids.error().message();
    EXPECT_EQ(*ids, prompt["ids"].get<std::vector<TokenId>>()) << name;
    EXPECT_EQ(demo()->decode(prompt["greedy_ids"].get<std::vector<TokenId>>()),
              prompt["greedy_text"].get<std::string>())
        << name;
  }
}

TEST(DemoTokenizer, NamesItsPiecesAndBytes) {
  EXPECT_EQ(demo()->kind(), "byte_level_bpe");
  EXPECT_EQ(demo()->vocab_size(), 4096);
  EXPECT_TRUE(demo()->is_special(0));
  EXPECT_FALSE(demo()->is_special(2));
  EXPECT_EQ(demo()->piece(0), "<|endoftext|>");
  EXPECT_EQ(demo()->piece(4096), "");
  EXPECT_EQ(demo()->piece(-1), "");
  const auto space_the = demo()->find("Ġthe");
  ASSERT_TRUE(space_the);
  EXPECT_EQ(demo()->bytes(*space_the), " the");
}

// encode() keeps every byte of an NFC text that names no special token.
RC_GTEST_PROP(DemoTokenizer, DecodesWhatItEncoded, ()) {
  const auto text = *rc::gen::container<std::string>(rc::gen::inRange('\x00', '\x7f'));
  const auto ids = demo()->encode(text);
  RC_ASSERT(ids.has_value());
  RC_ASSERT(text.find("<|") != std::string::npos || demo()->decode(*ids) == text);
}

RC_GTEST_PROP(StreamDecoder, ConcatenatesToTheDecodedText, ()) {
  // Ids below 260 are single bytes for the most part: many unfinished and broken characters.
  const auto id = rc::gen::oneOf(rc::gen::inRange<TokenId>(0, 260), rc::gen::inRange<TokenId>(0, 4100));
  const auto ids = *rc::gen::container<std::vector<TokenId>>(id);
  const bool skip_special = *rc::gen::arbitrary<bool>();
  StreamDecoder stream(demo(), skip_special);
  std::string text;
  for (const TokenId one : ids) text += stream.push(one);
  text += stream.finish();
  RC_ASSERT(text == demo()->decode(ids, skip_special));
}

TEST(StreamDecoder, HoldsBackAnUnfinishedCharacter) {
  const auto ids = demo()->encode("\xF0\x9F\x98\x80");  // an emoji outside the vocabulary: one id a byte
  ASSERT_TRUE(ids);
  ASSERT_GT(ids->size(), 1u);
  StreamDecoder stream(demo());
  for (size_t i = 0; i + 1 < ids->size(); ++i) EXPECT_EQ(stream.push((*ids)[i]), "");
  EXPECT_EQ(stream.push(ids->back()), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.finish(), "");
}

TEST(DemoTokenizer, TakesLongRunsInReasonableSteps) {
  // A quadratic merge of one piece of 2^20 characters, or a quadratic sort of as many marks, would not end.
  for (const std::string_view unit : {"a", " ", "\xCC\x81\xCC\xA3"}) {
    std::string text = "e";
    while (text.size() < (size_t{1} << 20)) text += unit;
    const auto ids = demo()->encode(text);
    ASSERT_TRUE(ids) << ids.error().message();
    EXPECT_GT(ids->size(), 1000u);
  }
}

}  // namespace
}  // namespace switchyard

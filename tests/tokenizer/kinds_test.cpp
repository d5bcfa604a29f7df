// Every kind of tokenizer and every option gives the ids and texts of the `tokenizers` package
// (tests/data/tokenizer/kinds.json, made by make_goldens.py with kinds.py and strings.py).
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/tokenizer/support.h"

namespace switchyard {
namespace {

const Json& data() {
  static const Json json = Json::parse(read(kSource / "tests/data/tokenizer/kinds.json"));
  return json;
}

void put_charsmap(Json& value) {
  if (value.is_string() && value == "@charsmap") {
    value = data()["charsmap"];
  } else if (value.is_structured()) {
    for (Json& inner : value) put_charsmap(inner);
  }
}

std::shared_ptr<const Tokenizer> tokenizer_of(const Json& kind) {
  Json file = kind["file"];
  for (const char* part : {"normalizer", "decoder"}) put_charsmap(file[part]);
  return load(ScratchFolder(file).path());
}

std::shared_ptr<const Tokenizer> named(const std::string& name) {
  for (const Json& kind : data()["kinds"])
    if (kind["name"] == name) return tokenizer_of(kind);
  ADD_FAILURE() << "no kind " << name;
  return nullptr;
}

class Kind : public testing::TestWithParam<size_t> {
 protected:
  const Json& golden() const { return data()["kinds"][GetParam()]; }
  void expect_ids(const Tokenizer& tokenizer, const Json& cases, bool add_special) const {
    for (const Json& one : cases) {
      const std::string text = data()["texts"][one[0].get<size_t>()];
      const auto ids = tokenizer.encode(text, add_special);
      ASSERT_TRUE(ids) << ids.error().message();
      EXPECT_EQ(*ids, one[1].get<std::vector<TokenId>>()) << Json(text).dump(-1, ' ', true);
    }
  }
};

TEST_P(Kind, EncodesAsTheTokenizersPackageDoes) {
  const auto tokenizer = tokenizer_of(golden());
  ASSERT_TRUE(tokenizer);
  ASSERT_GE(golden()["encode"].size(), 100u);
  expect_ids(*tokenizer, golden()["encode"], true);
  expect_ids(*tokenizer, golden()["plain"], false);
}

TEST_P(Kind, DecodesAsTheTokenizersPackageDoesAtOnceAndInAStream) {
  const auto tokenizer = tokenizer_of(golden());
  ASSERT_TRUE(tokenizer);
  ASSERT_FALSE(golden()["decode"].empty());
  for (const Json& one : golden()["decode"]) {
    const auto ids = one[0].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer->decode(ids, false), one[1].get<std::string>()) << one[0];
    EXPECT_EQ(tokenizer->decode(ids, true), one[2].get<std::string>()) << one[0];
    EXPECT_EQ(streamed(tokenizer, ids, false), one[1].get<std::string>()) << one[0];
    EXPECT_EQ(streamed(tokenizer, ids, true), one[2].get<std::string>()) << one[0];
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Kind, testing::Range<size_t>(0, data()["kinds"].size()), [](const auto& info) {
  return data()["kinds"][info.param]["name"].template get<std::string>();
});

TEST(HostileTexts, AreManyEnough) {
  EXPECT_GE(data()["texts"].size(), 300u);
}

// The streamed text equals the whole one for any ids, unknown ones too: unfinished UTF-8, runs of byte pieces, the
// first piece of Metaspace, Strip behind Fuse, the last piece of BPEDecoder.
class AnyIds : public testing::TestWithParam<const char*> {};

TEST_P(AnyIds, StreamToTheTextOfTheWholeList) {
  const auto tokenizer = named(GetParam());
  ASSERT_TRUE(tokenizer);
  EXPECT_TRUE(rc::check([&] {
    const auto id = rc::gen::oneOf(rc::gen::inRange<TokenId>(0, 270), rc::gen::inRange<TokenId>(-2, tokenizer->vocab_size() + 3));
    const auto ids = *rc::gen::container<std::vector<TokenId>>(id);
    const bool skip_special = *rc::gen::arbitrary<bool>();
    RC_ASSERT(streamed(tokenizer, ids, skip_special) == tokenizer->decode(ids, skip_special));
  }));
}

INSTANTIATE_TEST_SUITE_P(Decoders, AnyIds,
                         testing::Values("spm_legacy", "spm_always", "umt5", "unigram_bytes", "spm_affixes", "bert_processing",
                                         "roberta_processing", "fused_then_replaced", "bytes_normalizer"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Kinds, AreNamed) {
  EXPECT_EQ(named("spm_legacy")->kind(), "sentencepiece_bpe");
  EXPECT_EQ(named("t5")->kind(), "unigram");
  EXPECT_EQ(named("bytes_normalizer")->kind(), "byte_level_bpe");
}

TEST(SentencePiece, GivesTheBytesOfAPiece) {
  const auto tokenizer = named("spm_legacy");
  EXPECT_EQ(tokenizer->bytes(*tokenizer->find("<0xE2>")), "\xE2");
  EXPECT_EQ(tokenizer->bytes(*tokenizer->find("\u2581the")), " the");
}

// One piece of 1 MiB without a cut: a quadratic merge, or a quadratic search for the best path, would not end.
TEST(LongPieces, TakeStepsInProportion) {
  for (const char* name : {"spm_legacy", "unigram_bytes", "t5", "nllb"}) {
    const auto tokenizer = named(name);
    ASSERT_TRUE(tokenizer);
    for (const std::string_view unit : {"the quick ", " ", "a", "\xE4\xB8\x80", "\xF0\x9F\x98\x80", "<s", "\xCC\x81\xCC\xA3"}) {
      std::string text = "e";
      while (text.size() < (size_t{1} << 20)) text += unit;
      const auto ids = tokenizer->encode(text);
      ASSERT_TRUE(ids) << name << ": " << ids.error().message();
      EXPECT_EQ(streamed(tokenizer, *ids, true), tokenizer->decode(*ids, true)) << name;
    }
  }
}

// families.md, section 3.2, rule 10.
TEST(LlamaFast, PutsTheTokensOfItsConfigurationWhereTheFileHasNoTemplate) {
  Json file;
  for (const Json& kind : data()["kinds"])
    if (kind["name"] == "spm_legacy") file = kind["file"];
  const Json with_template = file;
  file["post_processor"] = nullptr;
  const auto ids_of = [](const Json& tokenizer, const std::string& config) {
    const ScratchFolder folder(tokenizer);
    if (!config.empty()) folder.write("tokenizer_config.json", config);
    const auto loaded = load(folder.path());
    return loaded ? *loaded->encode("a") : std::vector<TokenId>{};
  };
  const std::vector<TokenId> plain = ids_of(file, "");
  const auto with = [&plain](std::vector<TokenId> before, const std::vector<TokenId>& after) {
    before.insert(before.end(), plain.begin(), plain.end());
    before.insert(before.end(), after.begin(), after.end());
    return before;
  };
  const std::string config = R"("bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false})";
  EXPECT_EQ(ids_of(file, R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, )" + config + "}"), with({1}, {}));
  EXPECT_EQ(ids_of(file, R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "add_eos_token": true, )" + config + "}"), with({1}, {2}));
  EXPECT_EQ(ids_of(file, R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false, )" + config + "}"), plain);
  EXPECT_EQ(ids_of(file, R"({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true, )" + config + "}"), plain);
  EXPECT_EQ(ids_of(with_template, R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false, )" + config + "}"), with({1}, {}));
}

}  // namespace
}  // namespace switchyard

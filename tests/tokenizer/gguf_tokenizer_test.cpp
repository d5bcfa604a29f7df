// The tokenizer of a GGUF file gives the ids that the `tokenizers` package gives with the same vocabulary.
// Data: tests/data/gguf_tokenizers, made by make_gguf_tokenizers.py.
#include "engine/tokenizer/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/tokenizer.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
const fs::path kFolder = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/gguf_tokenizers";

Gguf gguf_of(const std::string& name) {
  const auto folder = Folder::open(kFolder);
  return *read_gguf(*folder->open_file(name + ".gguf"));
}

class GgufTokenizer : public testing::TestWithParam<std::string> {};

TEST_P(GgufTokenizer, GivesTheIdsAndTextsOfThePackage) {
  const auto json = tokenizer_json_of(gguf_of(GetParam()), GetParam());
  ASSERT_TRUE(json) << json.error().message();
  const TemporaryFolder folder;
  put_file(folder.path() / "tokenizer.json", json->dump());
  const auto tokenizer = Tokenizer::load(folder.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  const Json all = *parse_json(file_content(kFolder / "expected.json"), "expected.json");
  const Json& rows = all[GetParam()];
  ASSERT_EQ(rows.size(), 16u);
  for (const Json& row : rows) {
    SCOPED_TRACE(row["text"].dump());
    const auto ids = (*tokenizer)->encode(row["text"].get<std::string>());
    ASSERT_TRUE(ids) << ids.error().message();
    EXPECT_EQ(*ids, row["ids"].get<std::vector<TokenId>>());
    EXPECT_EQ((*tokenizer)->decode(*ids), row["decoded"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufTokenizer, testing::Values("byte_level", "sentencepiece"),
                         [](const auto& info) { return info.param; });

TEST(GgufTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto refusal = [](const std::string& key, const GgufValue& value) {
    Gguf gguf = gguf_of("byte_level");
    gguf.metadata[key] = value;
    const auto json = tokenizer_json_of(gguf, "x.gguf");
    return json ? std::string("read") : json.error().message();
  };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("tokenizer.ggml.pre", std::string("poro-chat")), HasSubstr("pre-tokenizer \"poro-chat\""));
  EXPECT_THAT(refusal("tokenizer.ggml.model", std::string("bert")), HasSubstr("kind \"bert\""));
  EXPECT_THAT(refusal("tokenizer.ggml.tokens", std::vector<std::string>{"\xff"}), HasSubstr("token 0 is no valid UTF-8"));
  EXPECT_THAT(refusal("tokenizer.ggml.token_type", std::vector<int64_t>{1}), HasSubstr("token types"));
  EXPECT_THAT(refusal("tokenizer.ggml.merges", int64_t{3}), HasSubstr("has no tokenizer.ggml.merges"));
}

}  // namespace
}  // namespace switchyard

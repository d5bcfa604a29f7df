// GGUF files: the hostile ones are refused with their message, sound ones open as a file, a folder or in parts.
// Files and messages: tests/data/hostile/gguf, made by make_hostile_gguf.py.
#include "engine/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kFolder = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/hostile/gguf";

TEST(Gguf, ASoundFileOpensByItselfAndByItsFolder) {
  const TemporaryFolder folder;
  fs::copy(kFolder / "sound.gguf", folder.path() / "tiny.gguf");
  for (const fs::path& path : {folder.path() / "tiny.gguf", folder.path()}) {
    const auto checkpoint = open_checkpoint(path.string());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    EXPECT_EQ(checkpoint->plan.family, "mixtral");
    EXPECT_EQ(checkpoint->shards, std::vector<std::string>{"tiny.gguf"});
    EXPECT_EQ(checkpoint->plan.parameters() * 4, int64_t(checkpoint->weight_bytes()));
    const auto weights = WeightStore::open(*checkpoint);
    ASSERT_TRUE(weights) << weights.error().message();
  }
}

TEST(Gguf, EachHostileFileIsRefusedWithItsMessage) {
  const Json cases = *parse_json(file_content(kFolder / "cases.json"), "cases.json");
  for (const Json& c : cases) {
    const std::string file = c["file"];
    SCOPED_TRACE(file);
    const auto checkpoint = open_checkpoint((kFolder / file).string());
    if (checkpoint) {
      ADD_FAILURE() << "opened";
      continue;
    }
    const std::string message = checkpoint.error().message();
    EXPECT_THAT(message, HasSubstr(file));
    for (const Json& part : c["message"]) EXPECT_THAT(message, HasSubstr(part.get<std::string>()));
    EXPECT_EQ(checkpoint.error().code, ErrorCode::kMalformed);
    for (const unsigned char byte : message) EXPECT_TRUE(byte >= 0x20 && byte != 0x7F) << "control byte in: " << message;
    EXPECT_LT(message.size(), 1000u);
  }
  EXPECT_GE(cases.size(), 50u);
}

// Nothing but a clean answer is expected; the sanitizer build makes this test sharp.
TEST(Gguf, NoByteFlipBreaksTheReader) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "x.gguf";
  const std::string content = file_content(kFolder / "sound.gguf");
  int opened = 0, refused = 0;
  for (size_t at = 0; at < content.size() - 900; at += 1) {
    std::string changed = content;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    put_file(file, changed);
    ++(open_checkpoint(file.string()) ? opened : refused);
  }
  EXPECT_GT(refused, opened);
}

TEST(Gguf, PartsOpenTogetherAndAMissingOneIsNamed) {
  const TemporaryFolder folder;
  fs::copy(kFolder / "sound.gguf", folder.path() / "m-00001-of-00002.gguf");
  const auto checkpoint = open_checkpoint(folder.path().string());
  ASSERT_FALSE(checkpoint);
  EXPECT_THAT(checkpoint.error().message(), HasSubstr("m-00002-of-00002.gguf"));
}

}  // namespace
}  // namespace switchyard

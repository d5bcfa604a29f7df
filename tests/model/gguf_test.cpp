// GGUF files: the hostile ones are refused with their message, sound ones open as a file, a folder or in parts.
// Files and messages: tests/data/hostile/gguf, made by make_hostile_gguf.py.
#include "engine/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

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

// What the program takes from the family because the file usually does not say it, must not be said otherwise.
TEST(Gguf, AFileThatDiffersFromItsFamilyIsRefused) {
  const TemporaryFolder folder;
  std::string content =
      file_content(fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/quantised_models/gguf_dbrx_f32/model.gguf");
  constexpr std::string_view kKey = "dbrx.attention.layer_norm_epsilon";
  const size_t at = content.find(kKey);
  ASSERT_NE(at, std::string::npos);
  const float eps = 1e-3f;
  std::memcpy(content.data() + at + kKey.size() + 4, &eps, sizeof eps);  // behind the type of the value
  put_file(folder.path() / "x.gguf", content);
  const auto checkpoint = open_checkpoint(folder.path().string());
  ASSERT_FALSE(checkpoint);
  EXPECT_THAT(checkpoint.error().message(), HasSubstr("layer_norm_epsilon = 0.001"));
}

// A whole set in parts, as the `gguf` package splits it (make_quantised.py): the first holds metadata alone, and
// tensors that are one to the family lie in different parts. Its numbers: tests/backend/quantised_models_test.cpp.
class SplitGguf : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& entry : fs::directory_iterator(kSplit))
      if (entry.path().extension() == ".gguf") {
        fs::copy(entry.path(), folder_.path() / entry.path().filename());
        parts_.push_back(entry.path().filename());
      }
    std::sort(parts_.begin(), parts_.end());
    ASSERT_GE(parts_.size(), 3u);
  }

  std::string refusal() const {
    const auto checkpoint = open_checkpoint(folder_.path().string());
    return checkpoint ? "opened" : checkpoint.error().message();
  }

  const fs::path kSplit = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/quantised_models/gguf_granite_split";
  const TemporaryFolder folder_;
  std::vector<std::string> parts_;
};

TEST_F(SplitGguf, OpensFromTheFolderAndFromAnyPart) {
  const auto whole = open_checkpoint(folder_.path().string());
  ASSERT_TRUE(whole) << whole.error().message();
  EXPECT_EQ(whole->shards, parts_);
  for (const std::string& part : parts_) {
    SCOPED_TRACE(part);
    const auto checkpoint = open_checkpoint((folder_.path() / part).string());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    EXPECT_EQ(checkpoint->shards, parts_);
    EXPECT_EQ(checkpoint->config_json, whole->config_json);
    ASSERT_EQ(checkpoint->tensors.size(), whole->tensors.size());
    for (size_t i = 0; i < whole->tensors.size(); ++i) {
      EXPECT_EQ(checkpoint->tensors[i].name, whole->tensors[i].name);
      EXPECT_EQ(checkpoint->tensors[i].shard, whole->tensors[i].shard);
      EXPECT_EQ(checkpoint->tensors[i].begin, whole->tensors[i].begin);
    }
    const auto weights = WeightStore::open(*checkpoint);
    EXPECT_TRUE(weights) << weights.error().message();
  }
}

TEST_F(SplitGguf, AMissingPartIsNamed) {
  for (const std::string& part : parts_) {
    SCOPED_TRACE(part);
    fs::rename(folder_.path() / part, folder_.path() / "away");
    EXPECT_THAT(refusal(), HasSubstr(part));
    fs::rename(folder_.path() / "away", folder_.path() / part);
  }
  EXPECT_EQ(refusal(), "opened");
}

TEST_F(SplitGguf, PartsInEachOthersPlaceAreRefused) {
  fs::rename(folder_.path() / parts_[1], folder_.path() / "away");
  fs::rename(folder_.path() / parts_[2], folder_.path() / parts_[1]);
  fs::rename(folder_.path() / "away", folder_.path() / parts_[2]);
  EXPECT_THAT(refusal(), HasSubstr(parts_[1] + ": is part 3 of "));
  EXPECT_THAT(refusal(), HasSubstr("2 by its name"));
}

TEST_F(SplitGguf, APartThatWasReplacedAfterOpeningIsNamed) {
  const auto checkpoint = open_checkpoint(folder_.path().string());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const TensorInfo* norm = checkpoint->find("model.layers.1.input_layernorm.weight");
  ASSERT_TRUE(norm);
  const std::string part = checkpoint->shards[size_t(norm->shard)];
  std::string other = file_content(folder_.path() / part);
  const size_t name = other.find("blk.1.attn_norm.weight");
  ASSERT_NE(name, std::string::npos);
  other[name + 4] = '7';
  put_file(folder_.path() / part, other);
  const auto weights = WeightStore::open(*checkpoint);
  ASSERT_FALSE(weights);
  EXPECT_THAT(weights.error().message(), HasSubstr(part));
}

}  // namespace
}  // namespace switchyard

// Broken and hostile checkpoint files are refused with their message and exit code, unusual legal ones are read.
// Files and messages: tests/data/hostile/model, made by make_hostile.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/model/safetensors.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kFolder = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/hostile/model";

Json cases() {
  return *parse_json(file_content(kFolder / "cases.json"), "cases.json");
}

// A copy of the sound checkpoint in which the hostile file stands for the one of its kind.
fs::path checkpoint_with(const fs::path& hostile, const fs::path& folder) {
  const std::string kind = hostile.parent_path().filename();
  const fs::path copy = folder / "model";
  fs::remove_all(copy);
  fs::copy(kFolder / (kind == "index" ? "base_sharded" : "base"), copy);
  const char* replaced = kind == "safetensors" ? "model.safetensors"
                         : kind == "config"    ? "config.json"
                         : kind == "index"     ? "model.safetensors.index.json"
                                               : "generation_config.json";
  put_file(copy / replaced, file_content(hostile));
  return copy;
}

TEST(Hostile, TheBasesAreSound) {
  for (const char* base : {"base", "base_sharded"}) {
    const auto checkpoint = open_checkpoint((kFolder / base).string());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    EXPECT_EQ(checkpoint->plan.parameters() * 2, static_cast<int64_t>(checkpoint->weight_bytes()));
  }
}

TEST(Hostile, EachFileIsRefusedWithItsMessage) {
  const TemporaryFolder folder;
  size_t tried = 0;
  const Json all = cases();
  for (const Json& c : all["refused"]) {
    const std::string file = c["file"];
    SCOPED_TRACE(file);
    const auto checkpoint = open_checkpoint(checkpoint_with(kFolder / file, folder.path()).string());
    ++tried;
    if (checkpoint) {
      ADD_FAILURE() << "opened";
      continue;
    }
    EXPECT_EQ(static_cast<int>(checkpoint.error().code), c["exit"].get<int>());
    const std::string message = checkpoint.error().message();
    for (const Json& part : c["message"]) EXPECT_THAT(message, HasSubstr(part.get<std::string>()));
    for (const unsigned char byte : message)
      EXPECT_TRUE(byte >= 0x20 && byte != 0x7F) << "control byte in: " << message;
    EXPECT_LT(message.size(), 1000u);
  }
  EXPECT_GE(tried, 150u);
}

TEST(Hostile, LegalOddFilesAreRead) {
  size_t read = 0;
  const Json all = cases();
  for (const Json& c : all["legal"]) {
    const std::string file = c["file"];
    SCOPED_TRACE(file);
    const std::string content = file_content(kFolder / file);
    const auto length = safetensors_header_bytes(content, content.size(), file);
    ASSERT_TRUE(length);
    const auto tensors = parse_safetensors_header(std::string_view(content).substr(8, *length), content.size(), file);
    ASSERT_TRUE(tensors) << tensors.error().message();
    Json found = Json::array();
    for (const TensorInfo& t : *tensors) found.push_back({t.name, name(t.dtype), t.shape, t.end - t.begin});
    EXPECT_EQ(found, c["tensors"]);
    ++read;
  }
  EXPECT_GE(read, 15u);
}

// reliability.md section 7: every hostile header again with one byte changed, at each place. Nothing but a clean
// answer is expected; the sanitizer build makes this test sharp.
TEST(Hostile, NoByteFlipBreaksTheReader) {
  int read = 0, refused = 0;
  for (const auto& entry : fs::directory_iterator(kFolder / "safetensors")) {
    const std::string content = file_content(entry.path());
    if (content.size() < 8 || content.size() > 2000) continue;
    for (size_t at = 0; at < content.size(); ++at) {
      std::string changed = content;
      changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
      const auto length = safetensors_header_bytes(changed, changed.size(), "x");
      if (!length) {
        ++refused;
        continue;
      }
      const auto header = parse_safetensors_header(std::string_view(changed).substr(8, *length), changed.size(), "x");
      ++(header ? read : refused);
    }
  }
  EXPECT_GT(refused, read) << "most flips of refused files stay refused";
  EXPECT_GT(read, 0) << "a flip can also mend a file; else nothing was parsed to its end";
}

}  // namespace
}  // namespace switchyard

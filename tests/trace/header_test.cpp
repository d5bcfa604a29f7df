// What a trace says of the model that made it.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/trace/provenance.h"
#include "engine/trace/trace.h"

namespace switchyard {
namespace {

std::string content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// FIPS 180-2, appendix B.1, and the empty message.
TEST(Provenance, HashesTextAsSha256) {
  EXPECT_EQ(sha256_of_text("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of_text(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Provenance, TheHeaderNamesEveryFileOfTheDemoModelWithItsHash) {
  const auto checkpoint = open_checkpoint("demo");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const auto header = make_trace_header(*checkpoint, CaptureLevel::kWeights);
  ASSERT_TRUE(header) << header.error().message();
  EXPECT_EQ(header->moe_layers, checkpoint->plan.moe_layers);
  EXPECT_EQ(header->router_names.front(), "layer 0");
  EXPECT_EQ(header->experts, 32);
  EXPECT_EQ(header->experts_per_token, 4);
  EXPECT_EQ(header->router, checkpoint->plan.routed(0).router);
  const auto model = nlohmann::json::parse(header->model_config_json);
  EXPECT_EQ(model["name"], "demo");
  EXPECT_EQ(model["config"], nlohmann::json::parse(checkpoint->config_json));
  std::vector<std::string> names;
  for (const auto& file : model["files"]) {
    const auto path = checkpoint->folder / file["name"].get<std::string>();
    EXPECT_EQ(file["sha256"], sha256_of_text(content_of(path))) << path;
    EXPECT_EQ(file["bytes"], std::filesystem::file_size(path));
    names.push_back(file["name"]);
  }
  EXPECT_THAT(names, ::testing::ElementsAre("model.safetensors", "config.json", "tokenizer.json"));
  EXPECT_EQ(model["tokenizer_sha256"], sha256_of_text(content_of(checkpoint->folder / "tokenizer.json")));
}

}  // namespace
}  // namespace switchyard

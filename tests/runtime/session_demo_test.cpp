// The session on the shipped checkpoint: the ids of transformers, edits that take effect where they say, and
// frames that a fresh cache reproduces bit for bit under the recipes that the epochs name.
#include <fstream>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/runtime/session.h"

namespace switchyard {
namespace {

using Ids = std::vector<TokenId>;

class SessionOnDemo : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto opened = open_checkpoint(SWITCHYARD_SOURCE_DIR "/assets/models/demo");
    ASSERT_TRUE(opened) << opened.error().message();
    checkpoint_ = new Checkpoint(std::move(*opened));
    std::ifstream file(SWITCHYARD_SOURCE_DIR "/assets/models/demo/expected.json");
    expected_ = new nlohmann::json(nlohmann::json::parse(file));
  }
  static void TearDownTestSuite() {
    delete checkpoint_;
    delete expected_;
  }

  static std::unique_ptr<Session> open(CaptureLevel capture = CaptureLevel::kLogits) {
    SessionOptions options;
    options.backend = "cpu";
    options.capture = capture;
    options.ignore_eos = true;
    auto session = Session::open(*checkpoint_, options);
    EXPECT_TRUE(session) << session.error().message();
    return session ? std::move(*session) : nullptr;
  }
  static Ids prompt(const char* name) { return (*expected_)["prompts"][name]["ids"].get<Ids>(); }

  static Checkpoint* checkpoint_;
  static nlohmann::json* expected_;
};
Checkpoint* SessionOnDemo::checkpoint_ = nullptr;
nlohmann::json* SessionOnDemo::expected_ = nullptr;

TEST_F(SessionOnDemo, GeneratesTheIdsOfTransformers) {
  const auto session = open();
  for (const char* name : {"python", "german", "json"}) {
    session->send(Start{prompt(name), 48});
    const auto end = session->wait();
    EXPECT_EQ(end->state, RunState::kFinished);
    EXPECT_EQ(end->generated_ids, (*expected_)["prompts"][name]["greedy_ids"].get<Ids>());
  }
}

}  // namespace
}  // namespace switchyard

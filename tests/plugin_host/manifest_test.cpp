// plugin.json: what is read, what is refused and with which JSON path.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/plugin_host/manifest.h"

namespace switchyard {
namespace {

std::string with(const std::string& contributes, const std::string& more = "") {
  return R"({"id": "my-gate", "version": "1.0", "title": "Mine", "contract": {"core": 1, "view": 1}, "library": "my_gate", "contributes": )" +
         contributes + more + "}";
}

std::string refusal(const std::string& text) {
  const auto read = parse_manifest(text, "plugin.json");
  return read ? "read" : read.error().message();
}

TEST(Manifest, ReadsWhatTheDesignShows) {
  const auto read =
      parse_manifest(R"({ "id": "noisy-gate", "version": "1.2.0", "title": "Noisy top-k", "license": "Apache-2.0",
    "contract": {"core": 1}, "library": "noisy_gate",
    "contributes": { "schemes": [{ "id": "noisy-gate.noisy_top_k", "title": "Noisy top-k", "stochastic": true, "causal": true, "max_slots": "k",
      "parameters": [{"name": "sigma", "type": "real", "default": 0.5, "min": 0, "max": 4, "unit": "logit"}] }] } })",
                     "plugin.json");
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_EQ(read->contributions.size(), 1u);
  const Contribution& one = read->contributions[0];
  EXPECT_EQ(one.kind, PluginKind::kScheme);
  EXPECT_TRUE(one.stochastic);
  ASSERT_EQ(one.parameters.size(), 1u);
  EXPECT_EQ(one.parameters[0].text_of(one.parameters[0].standard).value(), "0.5");
  EXPECT_EQ(read->library_file(), "libnoisy_gate.so");
  EXPECT_TRUE(read->core.holds(1));
  EXPECT_FALSE(read->core.holds(2));
  EXPECT_TRUE(read->notes.empty());
}

TEST(Manifest, NotesUnknownKeysAndKindsAndGoesOn) {
  const auto read = parse_manifest(
      with(R"({"spells": [], "metrics": [{"id": "my-gate.m", "title": "M", "colour": 3}]})", R"(, "mood": "good")"),
      "plugin.json");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->contributions.size(), 1u);
  ASSERT_EQ(read->notes.size(), 3u);
  EXPECT_NE(read->notes[0].find("/mood"), std::string::npos);
}

TEST(Manifest, RefusesAWrongTypeWithItsPath) {
  EXPECT_NE(refusal(with(R"({"schemes": [{"id": "my-gate.s", "title": "S", "stochastic": "yes"}]})"))
                .find("/contributes/schemes/0/stochastic"),
            std::string::npos);
  EXPECT_NE(
      refusal(
          with(
              R"({"schemes": [{"id": "my-gate.s", "title": "S", "parameters": [{"name": "a", "type": "real", "default": 9, "min": 0, "max": 4}]}]})"))
          .find("/contributes/schemes/0/parameters/0/default"),
      std::string::npos);
  EXPECT_NE(refusal(with("[]")).find("/contributes"), std::string::npos);
  EXPECT_NE(refusal(R"({"id": 3})").find("/id"), std::string::npos);
}

TEST(Manifest, RefusesIdsThatAreNotThePluginsOwn) {
  for (const char* id : {"other.s", "my-gate", "my-gate.", "my-gate.S", "my-gate.a/b", "my-gate.a b", "my-gate.\u00e9"})
    EXPECT_NE(refusal(with(std::string(R"({"schemes": [{"title": "S", "id": ")") + id + "\"}]}"))
                  .find("/contributes/schemes/0/id"),
              std::string::npos)
        << id;
  EXPECT_NE(
      refusal(
          with(R"({"metrics": [{"id": "my-gate.s", "title": "S"}], "schemes": [{"id": "my-gate.s", "title": "S"}]})"))
          .find("a second time"),
      std::string::npos);
}

TEST(Manifest, RefusesPathsOutOfItsFolder) {
  for (const char* file : {"../theme.json", "/etc/passwd", "a/b.json", ".."})
    EXPECT_NE(refusal(with(std::string(R"({"themes": [{"id": "my-gate.t", "title": "T", "file": ")") + file + "\"}]}"))
                  .find("/file"),
              std::string::npos)
        << file;
  std::string text = with("{}");
  text.replace(text.find("\"my_gate\""), 9, "\"../evil\"");
  EXPECT_NE(refusal(text).find("/library"), std::string::npos);
}

TEST(Manifest, RefusesWhatIsTooLarge) {
  std::string many = R"({"commands": [)";
  for (int i = 0; i < 17; ++i)
    many += (i ? "," : "") + std::string(R"({"id": "my-gate.c)") + std::to_string(i) +
            R"(", "title": "C", "actions": ["edit.undo"]})";
  EXPECT_NE(refusal(with(many + "]}")).find("16 are the most"), std::string::npos);
  EXPECT_NE(refusal(with("{}", ", \"description\": \"" + std::string(300'000, 'a') + "\"")).find("plugin.json"),
            std::string::npos);
}

TEST(Manifest, TakesAContractRange) {
  std::string text = with("{}");
  text.replace(text.find("\"core\": 1"), 9, "\"core\": [1, 3]");
  const auto read = parse_manifest(text, "plugin.json");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_TRUE(read->core.holds(2));
  EXPECT_FALSE(read->core.holds(4));
}

TEST(PluginField, TakesTextsOfItsType) {
  PluginField field{PluginField::Type::kInteger, "n", "", "", 3, 0, 9, {}};
  EXPECT_EQ(field.value_of("7").value(), 7);
  for (const char* text : {"7.5", "10", "-1", "seven", ""}) EXPECT_FALSE(field.value_of(text)) << text;
  field = {PluginField::Type::kBoolean, "b", "", "", true, 0, 0, {}};
  EXPECT_EQ(field.value_of("no").value(), false);
  EXPECT_FALSE(field.value_of("1"));
  field = {PluginField::Type::kChoice, "c", "", "", "red", 0, 0, {"red", "blue"}};
  EXPECT_EQ(field.value_of("blue").value(), "blue");
  EXPECT_FALSE(field.value_of("green"));
}

}  // namespace
}  // namespace switchyard

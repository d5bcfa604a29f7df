// Damaged tokenizer files: each is loaded or refused, never a crash, and what loads encodes and decodes
// (reliability.md, promise P1). Bytes of a small sound file are flipped, cut and repeated at random.
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string sound_file() {
  const Json goldens = Json::parse(std::ifstream(SWITCHYARD_SOURCE_DIR "/tests/data/tokenizer/goldens.json"));
  Json file = goldens["tiny"];
  file["added_tokens"] = {{{"id", 0}, {"content", "<s>"}, {"lstrip", true}, {"single_word", true}, {"special", true}}};
  file["normalizer"] = {{"type", "NFC"}};
  // Few pieces, so that mutations meet the structure and not only the vocabulary.
  Json& vocab = file["model"]["vocab"];
  vocab = {{"a", 0}, {"b", 1}, {"ab", 2}, {"Ġ", 3}, {"Ã", 4}, {"©", 5}};
  file["model"]["merges"] = {"a b"};
  file["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", R"(\s+|\p{L}{1,3})"}}}, {"behavior", "Isolated"}, {"invert", false}};
  return file.dump();
}

std::string mutated(std::string text, std::mt19937& random) {
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  static constexpr std::string_view kTokens[] = {"null", "-1",      "1e999", "[]", "{}", "\"\"", "4294967296",
                                                 "true", "\\ud800", "\xFF",  "(",  "]",  "\\\\"};
  for (size_t edits = 1 + below(3); edits > 0 && !text.empty(); --edits) {
    const size_t at = below(text.size());
    switch (below(4)) {
      case 0:
        text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, 1 + below(8));
        break;
      case 2:
        text.insert(at, kTokens[below(std::size(kTokens))]);
        break;
      default:
        text.insert(at, text.substr(below(text.size()), 1 + below(16)));
        break;
    }
  }
  return text;
}

TEST(DamagedTokenizers, AreRefusedOrWork) {
  const fs::path folder = fs::temp_directory_path() / ("switchyard-damaged-" + std::to_string(std::random_device{}()));
  fs::create_directories(folder);
  const std::string sound = sound_file();
  std::mt19937 random(20261124);
  int loaded_count = 0, refused_count = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string file = i == 0 ? sound : mutated(sound, random);
    std::ofstream(folder / "tokenizer.json", std::ios::trunc) << file;
    const auto loaded = Tokenizer::load(folder);
    if (!loaded) {
      ++refused_count;
      EXPECT_FALSE(loaded.error().what.empty()) << file;
      continue;
    }
    ++loaded_count;
    const auto ids = (*loaded)->encode("ab <s> \xC3\xA9 e\xCC\x81 \xFF abab <s");
    if (ids) (*loaded)->decode(*ids);
  }
  fs::remove_all(folder);
  // Both happen: the mutations reach past the parser, and the checks behind it refuse.
  EXPECT_GT(loaded_count, 100);
  EXPECT_GT(refused_count, 1000);
}

}  // namespace
}  // namespace switchyard

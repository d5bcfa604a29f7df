// Helpers of the tokenizer tests: files of this source tree, and a folder for one tokenizer.json.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

inline const std::filesystem::path kSource = SWITCHYARD_SOURCE_DIR;

inline std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A folder of this test program that goes away with the object.
class ScratchFolder {
 public:
  ScratchFolder() : path_(std::filesystem::temp_directory_path() / ("switchyard-tokenizer-" + std::to_string(std::random_device{}()))) {
    std::filesystem::create_directories(path_);
  }
  explicit ScratchFolder(const Json& tokenizer) : ScratchFolder() { write("tokenizer.json", tokenizer.dump()); }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder) {
  auto loaded = Tokenizer::load(folder);
  if (!loaded) ADD_FAILURE() << loaded.error().message();
  return loaded ? *loaded : nullptr;
}

inline std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<TokenId>& ids,
                            bool skip_special) {
  StreamDecoder stream(tokenizer, skip_special);
  std::string text;
  for (const TokenId id : ids) text += stream.push(id);
  return text + stream.finish();
}

}  // namespace switchyard

// tokenizer_config.json, see tokenizer_config.h. Any thread.
#include "engine/tokenizer/tokenizer_config.h"

#include "engine/base/json.h"

namespace switchyard {
namespace {

constexpr const char* kFile = "tokenizer_config.json";

// A special token is its text, or an object with the text as "content".
Result<std::string> token_text(const JsonView& value) {
  return value.json().is_object() ? value.text("content") : value.as_text();
}

}  // namespace

std::string TokenizerConfig::special(const std::string& role) const {
  const auto entry = special_tokens.find(role);
  return entry == special_tokens.end() ? std::string() : entry->second;
}

Result<TokenizerConfig> TokenizerConfig::read(const Folder& folder) {
  TokenizerConfig config;
  if (!folder.has(kFile)) return config;
  SY_TRY(const std::string text, folder.read_text(kFile, JsonLimits{}.bytes));
  const std::string path = (folder.path() / kFile).string();
  SY_TRY(const Json json, parse_json(text, path));
  const JsonView file(json, path);
  if (!json.is_object()) return file.fail("needs to be an object.");
  SY_TRY(config.tokenizer_class, file.text_or("tokenizer_class", ""));
  SY_TRY(config.add_bos, file.boolean_or("add_bos_token", false));
  SY_TRY(config.add_eos, file.boolean_or("add_eos_token", false));
  for (const char* role : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    if (const auto value = file.find(role)) {
      SY_TRY(config.special_tokens[role], token_text(*value));
    }
  }
  return config;
}

}  // namespace switchyard

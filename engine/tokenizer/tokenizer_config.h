// tokenizer_config.json, as far as it says more than tokenizer.json: the class, the special tokens by role and
// what is put around a text. Immutable after load; any thread.
#pragma once

#include <map>
#include <string>

#include "engine/base/folder.h"
#include "engine/base/result.h"

namespace switchyard {

struct TokenizerConfig {
  std::string tokenizer_class;
  bool add_bos = false, add_eos = false;
  std::map<std::string, std::string> special_tokens;  // "bos_token" -> "<s>"

  // An empty text where the role is not filled.
  std::string special(const std::string& role) const;

  // All empty where the folder has no tokenizer_config.json.
  static Result<TokenizerConfig> read(const Folder& folder);
};

}  // namespace switchyard

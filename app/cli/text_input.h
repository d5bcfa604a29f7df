// Text and id arguments of the commands: --text T, --text-file F ("-" is stdin), --token-ids 1,2,3. Taken byte
// for byte; caps: reliability.md, section 4. Main thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

// At most 16 MiB from a file or, for "-", from stdin.
Result<std::string> read_text(const std::string& file);

// "1,2,3", blanks allowed around the commas. option: named in errors.
Result<std::vector<TokenId>> parse_ids(std::string_view list, std::string_view option);

// One of a text, a text file and token ids, under names like --prompt, --prompt-file, --token-ids.
class SequenceInput {
 public:
  void add_options(CLI::App& app, const std::string& text_name, const std::string& file_name);
  bool given() const { return text_->count() + file_->count() + ids_->count() > 0; }
  // Ids below vocab; text is encoded with the tokenizer's template, or first wrapped in a chat template, which then
  // stands for it. tokenizer may be null when ids are given; chat: null or, with a text, the template.
  Result<std::vector<TokenId>> ids(const Tokenizer* tokenizer, int vocab, const ChatTemplate* chat = nullptr) const;

 private:
  CLI::Option *text_ = nullptr, *file_ = nullptr, *ids_ = nullptr;
  std::string text_value_, file_value_, ids_value_;
};

}  // namespace switchyard

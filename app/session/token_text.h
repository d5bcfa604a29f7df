// Tokens as text for people: control characters become symbols, a character that is spread over several
// tokens appears with the token that completes it. Used by RunModel; no thread owns it.
#pragma once

#include <memory>
#include <string>

#include "engine/base/ids.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

struct TokenText {
  std::string text;       // what a text view lays out: '\n' stays; empty while a character is unfinished
  std::string printable;  // one line, never empty: "↵", " the", "<E3 81>" for an unfinished character
};

class TokenTextBuilder {
 public:
  // tokenizer nullptr: tokens are shown as their numbers, "#123".
  explicit TokenTextBuilder(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  TokenText push(TokenId id);
  void clear() { pending_.clear(); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;  // the bytes of an unfinished character
};

// Control characters as symbols, invisible and direction-changing characters as their code point
// (CVE-2021-42574). keep_newlines: '\n' stays for layout.
std::string printable(std::string_view utf8, bool keep_newlines = false);

}  // namespace switchyard

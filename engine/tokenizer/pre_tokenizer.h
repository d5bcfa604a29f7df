// Pre-tokenizers of tokenizer.json: cut a text into the pieces the model works on. A new kind is one class
// in pre_tokenizer.cpp and one line in make_pre_tokenizer(). Immutable; any thread.
#pragma once

#include <memory>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/text.h"

namespace switchyard {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // pieces: none empty; replaced by the finer cut.
  virtual Result<void> cut(std::vector<Text>& pieces) const = 0;
  virtual bool byte_level() const { return false; }  // writes the byte-level alphabet
};

// spec: the file's "pre_tokenizer". Kinds: Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace,
// WhitespaceSplit, Punctuation, BertPreTokenizer, CharDelimiterSplit (called Delimiter), FixedLength; others are
// refused by name.
Result<std::unique_ptr<PreTokenizer>> make_pre_tokenizer(const JsonView& spec);

}  // namespace switchyard

// Pre-tokenizers of tokenizer.json: cut a text into the pieces the model works on. A new kind is one class
// in pre_tokenizer.cpp and one line in make_pre_tokenizer(). Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // pieces: valid UTF-8, none empty; replaced by the finer cut.
  virtual Result<void> cut(std::vector<std::string>& pieces) const = 0;
};

// spec: the file's "pre_tokenizer". Kinds: Sequence, Split, ByteLevel, Digits; others are refused by name.
Result<std::unique_ptr<PreTokenizer>> make_pre_tokenizer(const JsonView& spec);

}  // namespace switchyard

// The model of tokenizer.json: ids of one piece of text. Immutable; any thread.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;
  virtual Result<void> encode(std::string_view piece, std::vector<TokenId>& out) const = 0;  // appends
  virtual const Vocabulary& vocabulary() const = 0;
};

// spec: the file's "model". Types: BPE (also where an old file names none) and Unigram; others are refused by name.
Result<std::unique_ptr<TokenizerModel>> make_model(const JsonView& spec);

// "<0x41>": how models with byte fallback spell a byte.
std::string byte_piece(uint8_t byte);

}  // namespace switchyard

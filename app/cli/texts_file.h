// Sequences to score from a JSON Lines file: an object a line with "text" or "token_ids", and optionally
// "domain", "cohort", "source_id". Main thread.
#pragma once

#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

struct TextSequence {
  std::vector<TokenId> ids;
  std::string domain, source_id;
  // source_id as a trace holds it: the number that it is, or a checksum of it; without one, `place`.
  uint64_t source_number(uint64_t place) const;
};

// Empty lines are passed over. Errors name the line, from 1. tokenizer may be null when all lines hold ids.
Result<std::vector<TextSequence>> read_texts(const std::string& file, const Tokenizer* tokenizer, int vocab);

}  // namespace switchyard

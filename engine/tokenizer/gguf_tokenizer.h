// The tokenizer of a GGUF file, written as the tokenizer.json that the readers here take.
// Called by Tokenizer::load() on the opening thread. Kinds: families.md, section 3; llama.cpp's llama-vocab.cpp.
#pragma once

#include <string>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/gguf.h"

namespace switchyard {

// file: for messages. Refused by name: tokenizer kinds ("tokenizer.ggml.model") and pre-tokenizers that are not known.
Result<Json> tokenizer_json_of(const Gguf& gguf, const std::string& file);

}  // namespace switchyard

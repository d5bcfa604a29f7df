// Decoders of tokenizer.json: pieces back to text, one piece at a time, so that a text that is being
// generated and a finished one go through the same code. Decoders are immutable and serve any thread; a
// DecodeStream belongs to its caller.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  virtual std::string push(std::string_view piece) = 0;  // the text that is certain now
  virtual std::string finish() = 0;                      // the rest
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::unique_ptr<DecodeStream> stream() const = 0;
  // The bytes one piece contributes, whatever stands beside it.
  virtual std::string bytes(std::string_view piece) const = 0;
};

// spec: the file's "decoder", or nullptr (pieces joined by spaces, as the `tokenizers` package does).
// Kinds: ByteLevel, alone or in a Sequence; others are refused by name.
Result<std::unique_ptr<Decoder>> make_decoder(const JsonView* spec);

}  // namespace switchyard

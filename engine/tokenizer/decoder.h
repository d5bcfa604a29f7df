// Decoders of tokenizer.json: pieces back to text, one piece at a time, so that a text that is being
// generated and a finished one go through the same code. Decoders are immutable and serve any thread; a
// DecodeStream belongs to its caller.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/decoder_steps.h"

namespace switchyard {

class DecodeStream {
 public:
  explicit DecodeStream(std::vector<std::unique_ptr<DecoderState>> states) : states_(std::move(states)) {}
  std::string push(std::string_view piece);  // the text that is certain now
  std::string finish();                      // the rest

 private:
  std::vector<std::unique_ptr<DecoderState>> states_;
};

class Decoder {
 public:
  // spec: the file's "decoder", or nullptr (pieces joined by spaces, as the `tokenizers` package does).
  // Kinds: Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, WordPiece, BPEDecoder; others are
  // refused by name.
  static Result<Decoder> make(const JsonView* spec);

  std::unique_ptr<DecodeStream> stream() const;
  // The bytes one piece contributes behind another one, whatever they are.
  std::string bytes(std::string_view piece) const;
  bool byte_level() const { return byte_level_; }

 private:
  Result<void> add(const JsonView& spec);

  std::vector<std::unique_ptr<DecoderStep>> steps_;
  bool byte_level_ = false;
};

}  // namespace switchyard

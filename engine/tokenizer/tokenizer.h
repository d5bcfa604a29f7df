// Text to token ids and back, from tokenizer.json, exact to the `tokenizers` package (specs/families.md, section 3).
// Immutable after load; any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

struct Checkpoint;    // engine/model/checkpoint.h
class DecodeStream;  // engine/tokenizer/decoder.h

class Tokenizer {
 public:
  // folder: holds tokenizer.json. Unsupported kinds are refused by name, before any use. tokenizer_config.json
  // beside it counts in one case: for a Llama*Fast class whose tokenizer.json has no template, its add_bos_token
  // and add_eos_token say what is put around a text.
  static Result<std::shared_ptr<const Tokenizer>> load(const std::filesystem::path& folder);
  // Of a model: the tokenizer.json beside it, else, for a GGUF file, the one in its metadata.
  static Result<std::shared_ptr<const Tokenizer>> load(const Checkpoint& checkpoint);
  virtual ~Tokenizer() = default;

  virtual std::string_view kind() const = 0;  // "byte_level_bpe", "sentencepiece_bpe" or "unigram"
  virtual int vocab_size() const = 0;         // largest id + 1, added tokens included

  // text: any bytes up to 16 MiB; invalid UTF-8 is replaced by U+FFFD first. add_special: apply the file's
  // template. The file's truncation and padding settings are not applied.
  virtual Result<std::vector<TokenId>> encode(std::string_view text, bool add_special = true) const = 0;
  // Lossy UTF-8 like the `tokenizers` package: invalid sequences become U+FFFD. Unknown ids decode to nothing.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special = false) const = 0;
  // The raw bytes of one token as it contributes to a text; often not valid UTF-8.
  virtual std::string bytes(TokenId id) const = 0;
  // The vocabulary's own spelling ("Ġthe"); empty for unknown ids, which knows() tells from an empty piece.
  virtual std::string piece(TokenId id) const = 0;
  virtual bool knows(TokenId id) const = 0;
  virtual std::optional<TokenId> find(std::string_view piece) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  virtual std::unique_ptr<DecodeStream> stream() const = 0;
};

// Decodes a growing list of ids: push() returns the text that became certain, holding back the bytes
// of an unfinished UTF-8 character; finish() returns the rest (U+FFFD for what never completed).
// The concatenation equals Tokenizer::decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = false);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();
  std::string push(TokenId id);
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<DecodeStream> stream_;
  bool skip_special_;
};

}  // namespace switchyard

// Normalizers of tokenizer.json: rewrite a piece of text before it is cut. A new kind is one class and one line
// in make_normalizer(). Immutable; any thread.
#pragma once

#include <memory>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/text.h"

namespace switchyard {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual Result<void> normalize(Text& text) const = 0;
  virtual bool byte_level() const { return false; }  // writes the byte-level alphabet
};

// spec: the file's "normalizer". Kinds: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, StripAccents,
// Lowercase, Precompiled, Nmt, ByteLevel; others are refused by name.
Result<std::unique_ptr<Normalizer>> make_normalizer(const JsonView& spec);

}  // namespace switchyard

// Normalizers of tokenizer.json: rewrite a piece of text before it is cut. A new kind is one class here and
// one line in make_normalizer(). Immutable; any thread.
#pragma once

#include <memory>
#include <string>

#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual Result<std::string> normalize(std::string text) const = 0;  // valid UTF-8 in and out
};

// spec: the file's "normalizer". Kinds: Sequence, NFC, NFD, NFKC, NFKD; others are refused by name.
Result<std::unique_ptr<Normalizer>> make_normalizer(const JsonView& spec);

}  // namespace switchyard

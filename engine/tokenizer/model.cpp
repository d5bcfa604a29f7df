// The model of tokenizer.json, see model.h. Any thread.
#include "engine/tokenizer/model.h"

#include "engine/base/text.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/unigram.h"

namespace switchyard {

Result<std::unique_ptr<TokenizerModel>> make_model(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text_or("type", "BPE"));
  if (type == "BPE") {
    SY_TRY(Bpe bpe, Bpe::read(spec));
    return std::make_unique<Bpe>(std::move(bpe));
  }
  if (type == "Unigram") {
    SY_TRY(Unigram unigram, Unigram::read(spec));
    return std::make_unique<Unigram>(std::move(unigram));
  }
  return spec.fail("is of type " + quote(type) + ", which this reader does not support (BPE, Unigram).");
}

std::string byte_piece(uint8_t byte) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

}  // namespace switchyard

// Decoders of tokenizer.json, see decoder.h.
#include "engine/tokenizer/decoder.h"

#include "engine/base/text.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// Bytes of all pieces in a row, lossily as UTF-8.
class ByteLevelDecoder final : public Decoder {
 public:
  std::unique_ptr<DecodeStream> stream() const override { return std::make_unique<Stream>(); }
  std::string bytes(std::string_view piece) const override { return from_byte_level(piece); }

 private:
  class Stream final : public DecodeStream {
   public:
    std::string push(std::string_view piece) override {
      pending_ += from_byte_level(piece);
      return drain(false);
    }
    std::string finish() override { return drain(true); }

   private:
    std::string drain(bool final) {
      std::string text;
      pending_.erase(0, append_lossy(pending_, final, text));
      return text;
    }
    std::string pending_;  // the bytes of an unfinished character
  };
};

class JoinedBySpaces final : public Decoder {
 public:
  std::unique_ptr<DecodeStream> stream() const override { return std::make_unique<Stream>(); }
  std::string bytes(std::string_view piece) const override { return std::string(piece); }

 private:
  class Stream final : public DecodeStream {
   public:
    std::string push(std::string_view piece) override {
      std::string text = first_ ? std::string(piece) : " " + std::string(piece);
      first_ = false;
      return text;
    }
    std::string finish() override { return {}; }

   private:
    bool first_ = true;
  };
};

}  // namespace

Result<std::unique_ptr<Decoder>> make_decoder(const JsonView* spec) {
  if (!spec) return std::make_unique<JoinedBySpaces>();
  SY_TRY(const std::string type, spec->text("type"));
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "Sequence") {
    SY_TRY(const auto steps, spec->array("decoders"));
    if (steps.size() == 1) return make_decoder(&steps[0]);
    return spec->fail("is a sequence of " + std::to_string(steps.size()) + " decoders; this reader supports one.");
  }
  return spec->fail("is of type " + quote(type) + ", which this reader does not support (ByteLevel).");
}

}  // namespace switchyard

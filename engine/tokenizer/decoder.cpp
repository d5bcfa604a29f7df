// Decoders of tokenizer.json, see decoder.h.
#include "engine/tokenizer/decoder.h"

#include "engine/base/text.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

Result<DecoderStepPtr> make_strip(const JsonView& spec) {
  constexpr int64_t kMaxStrip = 1 << 16;
  SY_TRY(const JsonView content, spec.at("content"));
  SY_TRY(const std::string text, content.as_text());
  if (text.empty() || character_length(text) != text.size())
    return content.fail("is " + quote(text) + ", needs one character.");
  SY_TRY(const int64_t start, spec.integer("start", 0, kMaxStrip));
  SY_TRY(const int64_t stop, spec.integer("stop", 0, kMaxStrip));
  return strip_step(text, static_cast<size_t>(start), static_cast<size_t>(stop));
}

Result<DecoderStepPtr> make_step(const std::string& type, const JsonView& spec) {
  if (type == "ByteFallback") return byte_fallback_step();
  if (type == "Fuse") return fuse_step();
  if (type == "Strip") return make_strip(spec);
  if (type == "Metaspace") {
    SY_TRY(MetaspaceSettings settings, read_metaspace(spec));
    return metaspace_step(std::move(settings));
  }
  if (type == "Replace") {
    SY_TRY(Regex pattern, read_pattern(spec));
    SY_TRY(std::string content, spec.text("content"));
    return replace_step(std::move(pattern), std::move(content));
  }
  if (type == "WordPiece") {
    SY_TRY(std::string prefix, spec.text_or("prefix", "##"));
    SY_TRY(const bool cleanup, spec.boolean_or("cleanup", true));
    return word_piece_step(std::move(prefix), cleanup);
  }
  if (type == "BPEDecoder") {
    SY_TRY(std::string suffix, spec.text_or("suffix", "</w>"));
    return suffix_step(std::move(suffix));
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, "
                   "Strip, WordPiece, BPEDecoder).");
}

}  // namespace

Result<Decoder> Decoder::make(const JsonView* spec) {
  Decoder decoder;
  if (spec)
    SY_CHECK(decoder.add(*spec));
  else
    decoder.steps_.push_back(spaces_step());
  return decoder;
}

Result<void> Decoder::add(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text("type"));
  if (steps_.size() >= 64) return spec.fail("is one of more than 64 steps.");
  if (type == "ByteLevel") {
    byte_level_ = true;
    steps_.push_back(byte_level_step());
    return {};
  }
  if (type == "Sequence") {
    SY_TRY(const auto specs, spec.array("decoders"));
    for (const JsonView& step : specs) SY_CHECK(add(step));
    return {};
  }
  SY_TRY(auto step, make_step(type, spec));
  steps_.push_back(std::move(step));
  return {};
}

std::unique_ptr<DecodeStream> Decoder::stream() const {
  std::vector<std::unique_ptr<DecoderState>> states;
  for (const auto& step : steps_) states.push_back(step->start());
  return std::make_unique<DecodeStream>(std::move(states));
}

std::string Decoder::bytes(std::string_view piece) const {
  std::string bytes(piece);
  for (const auto& step : steps_) bytes = step->bytes(std::move(bytes));
  return bytes;
}

std::string DecodeStream::push(std::string_view piece) {
  std::vector<Fragment> fragments{{std::string(piece), true}}, next;
  for (const auto& state : states_) {
    next.clear();
    for (Fragment& fragment : fragments) state->push(std::move(fragment), next);
    std::swap(fragments, next);
  }
  std::string text;
  for (const Fragment& fragment : fragments) text += fragment.text;
  return text;
}

std::string DecodeStream::finish() {
  std::vector<Fragment> fragments, next;
  for (const auto& state : states_) {
    next.clear();
    for (Fragment& fragment : fragments) state->push(std::move(fragment), next);
    state->finish(next);
    std::swap(fragments, next);
  }
  std::string text;
  for (const Fragment& fragment : fragments) text += fragment.text;
  return text;
}

}  // namespace switchyard

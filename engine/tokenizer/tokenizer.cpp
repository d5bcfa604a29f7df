// tokenizer.json to a Tokenizer: reads the parts and runs them in order. See tokenizer.h. Any thread.
#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <fstream>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxFile = size_t{256} << 20;
constexpr size_t kMaxText = size_t{16} << 20;

class ByteLevelBpe final : public Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> read(const JsonView& file);

  std::string_view kind() const override { return "byte_level_bpe"; }
  int vocab_size() const override { return std::max(model_.vocabulary().end_id(), added_.end_id()); }

  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override;
  std::unique_ptr<DecodeStream> stream() const override { return decoder_->stream(); }
  std::string bytes(TokenId id) const override { return decoder_->bytes(piece(id)); }
  std::string piece(TokenId id) const override;
  std::optional<TokenId> find(std::string_view piece) const override;
  bool is_special(TokenId id) const override { return added_.is_special(piece(id)); }

 private:
  ByteLevelBpe(Bpe model, AddedTokens added) : model_(std::move(model)), added_(std::move(added)) {}
  Result<void> encode_plain(std::string text, std::vector<TokenId>& ids) const;

  Bpe model_;
  AddedTokens added_;
  std::unique_ptr<Normalizer> normalizer_;       // may be null
  std::unique_ptr<PreTokenizer> pre_tokenizer_;  // may be null
  PostProcessor post_processor_;
  std::unique_ptr<Decoder> decoder_;
};

Result<std::shared_ptr<const Tokenizer>> ByteLevelBpe::read(const JsonView& file) {
  SY_TRY(const JsonView model_spec, file.at("model"));
  SY_TRY(const std::string model_type, model_spec.text_or("type", "BPE"));  // missing in old files
  if (model_type != "BPE")
    return model_spec.fail("is of type " + quote(model_type) + ", which this reader does not support (BPE).");

  std::unique_ptr<Normalizer> normalizer;
  if (const auto spec = file.find("normalizer")) {
    SY_TRY(normalizer, make_normalizer(*spec));
  }
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  if (const auto spec = file.find("pre_tokenizer")) {
    SY_TRY(pre_tokenizer, make_pre_tokenizer(*spec));
  }
  const auto decoder_spec = file.find("decoder");
  SY_TRY(std::unique_ptr<Decoder> decoder, make_decoder(decoder_spec ? &*decoder_spec : nullptr));

  SY_TRY(Bpe model, Bpe::read(model_spec));
  const auto added_spec = file.find("added_tokens");
  SY_TRY(AddedTokens added,
         AddedTokens::read(added_spec ? &*added_spec : nullptr, model.vocabulary(), normalizer.get()));

  const std::shared_ptr<ByteLevelBpe> made(new ByteLevelBpe(std::move(model), std::move(added)));
  const auto post_spec = file.find("post_processor");
  SY_TRY(made->post_processor_, PostProcessor::make(post_spec ? &*post_spec : nullptr, made->vocab_size()));
  made->normalizer_ = std::move(normalizer);
  made->pre_tokenizer_ = std::move(pre_tokenizer);
  made->decoder_ = std::move(decoder);
  return made;
}

Result<std::vector<TokenId>> ByteLevelBpe::encode(std::string_view bytes, bool add_special) const {
  if (bytes.size() > kMaxText)
    return fail(ErrorCode::kMalformed, "the text has " + std::to_string(bytes.size()) + " bytes; the limit is 16 MiB.");
  std::vector<TokenId> ids;
  for (const TextPart& part : added_.split_raw(lossy_utf8(bytes))) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    std::string text = part.text;
    if (normalizer_) {
      SY_TRY(text, normalizer_->normalize(std::move(text)));
    }
    for (const TextPart& inner : added_.split_normalized(text)) {
      if (inner.id)
        ids.push_back(*inner.id);
      else
        SY_CHECK(encode_plain(inner.text, ids));
    }
  }
  return add_special ? post_processor_.apply(std::move(ids)) : std::move(ids);
}

Result<void> ByteLevelBpe::encode_plain(std::string text, std::vector<TokenId>& ids) const {
  std::vector<std::string> pieces;
  pieces.push_back(std::move(text));
  if (pre_tokenizer_) SY_CHECK(pre_tokenizer_->cut(pieces));
  for (const std::string& piece : pieces) model_.encode(piece, ids);
  return {};
}

std::string ByteLevelBpe::decode(std::span<const TokenId> ids, bool skip_special) const {
  const auto stream = decoder_->stream();
  std::string text;
  for (const TokenId id : ids) {
    const std::string token = piece(id);
    if (!token.empty() && !(skip_special && added_.is_special(token))) text += stream->push(token);
  }
  return text + stream->finish();
}

std::string ByteLevelBpe::piece(TokenId id) const {
  if (const AddedToken* token = added_.find(id)) return token->content;
  const std::string* piece = model_.vocabulary().piece(id);
  return piece ? *piece : std::string();
}

std::optional<TokenId> ByteLevelBpe::find(std::string_view piece) const {
  if (const auto id = added_.find(piece)) return id;
  return model_.vocabulary().find(piece);
}

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return fail(ErrorCode::kNotFound, "not found, or not readable.", path.string());
  const auto size = static_cast<size_t>(std::max<std::streamoff>(file.tellg(), 0));
  if (size > kMaxFile)
    return fail(ErrorCode::kMalformed, "has " + std::to_string(size) + " bytes; the limit is 256 MiB.", path.string());
  std::string text(size, '\0');
  file.seekg(0);
  if (!file.read(text.data(), static_cast<std::streamsize>(size)))
    return fail(ErrorCode::kNotFound, "could not be read to its end.", path.string());
  return text;
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  SY_TRY(const std::string text, read_file(path));
  SY_TRY(const Json json, parse_json(text, path.string(), JsonLimits{.bytes = kMaxFile}));
  const JsonView file(json, path.string());
  SY_TRY(const std::string version, file.text("version"));
  if (version != "1.0") return file.fail("has version " + quote(version) + ", needs \"1.0\".");
  return ByteLevelBpe::read(file);
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), stream_(tokenizer_->stream()), skip_special_(skip_special) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(TokenId id) {
  const std::string piece = tokenizer_->piece(id);
  if (piece.empty() || (skip_special_ && tokenizer_->is_special(id))) return {};
  return stream_->push(piece);
}

std::string StreamDecoder::finish() {
  return stream_->finish();
}

}  // namespace switchyard

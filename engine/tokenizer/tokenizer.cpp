// tokenizer.json to a Tokenizer: reads the parts and runs them in order. See tokenizer.h. Any thread.
#include "engine/tokenizer/tokenizer.h"

#include <algorithm>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/gguf_files.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/gguf_tokenizer.h"
#include "engine/tokenizer/limits.h"
#include "engine/tokenizer/model.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer_config.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

class FileTokenizer final : public Tokenizer {
 public:
  static Result<std::shared_ptr<FileTokenizer>> read(const JsonView& file);
  // Item 10 of families.md, section 3.2.
  void apply(const TokenizerConfig& config);

  std::string_view kind() const override { return kind_; }
  int vocab_size() const override { return std::max(model_->vocabulary().end_id(), added_.end_id()); }

  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override;
  std::unique_ptr<DecodeStream> stream() const override { return decoder_.stream(); }
  std::string bytes(TokenId id) const override { return decoder_.bytes(piece(id)); }
  std::string piece(TokenId id) const override;
  bool knows(TokenId id) const override { return added_.find(id) || model_->vocabulary().piece(id); }
  std::optional<TokenId> find(std::string_view piece) const override;
  bool is_special(TokenId id) const override { return added_.is_special(piece(id)); }

 private:
  FileTokenizer() = default;
  Result<void> read_parts(const JsonView& file);
  std::string_view name_kind(std::string_view model_type) const;
  Result<std::vector<TokenId>> encode_text(std::string_view bytes, bool add_special) const;
  Result<void> encode_plain(Text text, std::vector<TokenId>& ids) const;

  std::string document_;  // named in errors
  std::string_view kind_;
  std::unique_ptr<TokenizerModel> model_;
  AddedTokens added_;
  std::unique_ptr<Normalizer> normalizer_;       // may be null
  std::unique_ptr<PreTokenizer> pre_tokenizer_;  // may be null
  PostProcessor post_processor_;
  Decoder decoder_;
};

Result<std::shared_ptr<FileTokenizer>> FileTokenizer::read(const JsonView& file) {
  const std::shared_ptr<FileTokenizer> made(new FileTokenizer());
  made->document_ = file.document();
  SY_CHECK(made->read_parts(file));
  return made;
}

Result<void> FileTokenizer::read_parts(const JsonView& file) {
  const auto optional = [](const std::optional<JsonView>& view) { return view ? &*view : nullptr; };
  if (const auto spec = file.find("normalizer")) {
    SY_TRY(normalizer_, make_normalizer(*spec));
  }
  if (const auto spec = file.find("pre_tokenizer")) {
    SY_TRY(pre_tokenizer_, make_pre_tokenizer(*spec));
  }
  const auto decoder = file.find("decoder");
  SY_TRY(decoder_, Decoder::make(optional(decoder)));
  SY_TRY(const JsonView model, file.at("model"));
  SY_TRY(model_, make_model(model));
  SY_TRY(const std::string model_type, model.text_or("type", "BPE"));
  kind_ = name_kind(model_type);
  const auto added = file.find("added_tokens");
  SY_TRY(added_, AddedTokens::read(optional(added), model_->vocabulary(), normalizer_.get()));
  const auto post = file.find("post_processor");
  SY_TRY(post_processor_, PostProcessor::make(optional(post), vocab_size()));
  return {};
}

std::string_view FileTokenizer::name_kind(std::string_view model_type) const {
  if (model_type == "Unigram") return "unigram";
  const bool byte_level = decoder_.byte_level() || (normalizer_ && normalizer_->byte_level()) ||
                          (pre_tokenizer_ && pre_tokenizer_->byte_level());
  return byte_level ? "byte_level_bpe" : "sentencepiece_bpe";
}

void FileTokenizer::apply(const TokenizerConfig& config) {
  const bool asks = config.tokenizer_class.starts_with("Llama") && config.tokenizer_class.ends_with("Fast");
  if (!asks || !post_processor_.empty() || !(config.add_bos || config.add_eos)) return;
  post_processor_ = PostProcessor::around(config.add_bos ? find(config.special("bos_token")) : std::nullopt,
                                          config.add_eos ? find(config.special("eos_token")) : std::nullopt);
}

Result<std::vector<TokenId>> FileTokenizer::encode(std::string_view bytes, bool add_special) const {
  auto ids = encode_text(bytes, add_special);
  if (!ids && ids.error().where.empty()) ids.error().where = document_;
  return ids;
}

Result<std::vector<TokenId>> FileTokenizer::encode_text(std::string_view bytes, bool add_special) const {
  if (bytes.size() > kMaxText)
    return fail(ErrorCode::kMalformed, "the text has " + std::to_string(bytes.size()) + " bytes; the limit is 16 MiB.");
  Text whole{lossy_utf8(bytes), 0};
  if (!whole.text.empty()) whole.origin = character_length(whole.text);
  std::vector<TokenId> ids;
  for (TextPart& part : added_.split_raw(whole)) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    if (normalizer_) SY_CHECK(normalizer_->normalize(part.text));
    for (TextPart& inner : added_.split_normalized(part.text)) {
      if (inner.id)
        ids.push_back(*inner.id);
      else
        SY_CHECK(encode_plain(std::move(inner.text), ids));
    }
  }
  return post_processor_.apply(std::move(ids), add_special);
}

Result<void> FileTokenizer::encode_plain(Text text, std::vector<TokenId>& ids) const {
  std::vector<Text> pieces;
  pieces.push_back(std::move(text));
  if (pre_tokenizer_) SY_CHECK(pre_tokenizer_->cut(pieces));
  for (const Text& piece : pieces) SY_CHECK(model_->encode(piece.text, ids));
  return {};
}

std::string FileTokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  const auto stream = decoder_.stream();
  std::string text;
  for (const TokenId id : ids) {
    if (!knows(id)) continue;
    const std::string token = piece(id);
    if (!(skip_special && added_.is_special(token))) text += stream->push(token);
  }
  return text + stream->finish();
}

std::string FileTokenizer::piece(TokenId id) const {
  if (const AddedToken* token = added_.find(id)) return token->spelling;
  const std::string* piece = model_->vocabulary().piece(id);
  return piece ? *piece : std::string();
}

std::optional<TokenId> FileTokenizer::find(std::string_view piece) const {
  if (const auto id = added_.find(piece)) return id;
  return model_->vocabulary().find(piece);
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::filesystem::path& path) {
  const std::string name = (path / "tokenizer.json").string();
  const auto folder = Folder::open(path);
  if (!folder) return fail(ErrorCode::kNotFound, "not found, or not readable.", name);
  SY_TRY(const std::string text, folder->read_text("tokenizer.json", kMaxTokenizerFile));
  SY_TRY(const Json json, parse_json(text, name, JsonLimits{.bytes = kMaxTokenizerFile}));
  const JsonView file(json, name);
  SY_TRY(const std::string version, file.text("version"));
  if (version != "1.0") return file.fail("has version " + quote(version) + ", needs \"1.0\".");
  SY_TRY(const auto tokenizer, FileTokenizer::read(file));
  SY_TRY(const TokenizerConfig config, TokenizerConfig::read(*folder));
  tokenizer->apply(config);
  return tokenizer;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const Checkpoint& checkpoint) {
  if (checkpoint.shards.empty() || !is_gguf_name(checkpoint.shards.front())) return load(checkpoint.folder);
  SY_TRY(const Folder folder, Folder::open(checkpoint.folder));
  if (folder.has("tokenizer.json")) return load(checkpoint.folder);
  SY_TRY(const OpenFile file, folder.open_file(checkpoint.shards.front()));
  SY_TRY(const Gguf gguf, read_gguf(file));
  SY_TRY(const Json json, tokenizer_json_of(gguf, file.name()));
  SY_TRY(const auto tokenizer, FileTokenizer::read(JsonView(json, file.name() + ": tokenizer")));
  return tokenizer;
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), stream_(tokenizer_->stream()), skip_special_(skip_special) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(TokenId id) {
  if (!tokenizer_->knows(id) || (skip_special_ && tokenizer_->is_special(id))) return {};
  return stream_->push(tokenizer_->piece(id));
}

std::string StreamDecoder::finish() {
  return stream_->finish();
}

}  // namespace switchyard

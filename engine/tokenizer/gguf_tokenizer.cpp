// The tokenizer of a GGUF file as tokenizer.json.
#include "engine/tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <unordered_map>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr std::string_view kHint = "Put the model's tokenizer.json beside the file.";
constexpr int64_t kControl = 3, kUserDefined = 4;  // tokenizer.ggml.token_type

// Regexes: families.md, section 3.1.
constexpr std::string_view kQwen =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json split(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", use_regex}};
}

Json sequence(std::initializer_list<Json> parts) {
  return {{"type", "Sequence"}, {"pretokenizers", Json(parts)}};
}

// tokenizer.ggml.pre -> normalizer, pre_tokenizer, ignore_merges.
struct Pre {
  Json normalizer, pre_tokenizer;
  bool ignore_merges = false;
};
Result<Pre> pre_of(const Gguf& gguf, const std::string& file) {
  const std::string name = gguf.text("tokenizer.ggml.pre").value_or("default");
  const Json nfc = {{"type", "NFC"}};
  if (name == "gpt-2") return Pre{nullptr, byte_level(true)};
  if (name == "olmo") return Pre{nfc, byte_level(true)};
  if (name == "refact" || name == "starcoder")
    return Pre{nullptr, sequence({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)})};
  if (name == "qwen2") return Pre{nfc, sequence({split(kQwen), byte_level(false)})};
  if (name == "dbrx") return Pre{nullptr, sequence({split(kLlama3), byte_level(false)})};
  if (name == "llama-bpe") return Pre{nullptr, sequence({split(kLlama3), byte_level(false)}), true};
  if (name == "gpt-4o") return Pre{nullptr, sequence({split(kO200k), byte_level(false)})};
  if (name == "llama4") return Pre{nullptr, sequence({split(kO200k), byte_level(false)}), true};
  if (name == "deepseek-v3")
    return Pre{nullptr, sequence({split(R"(\p{N}{1,3})"), split("[一-龥぀-ゟ゠-ヿ]+"), split(kDeepseek3), byte_level(false)})};
  return fail(ErrorCode::kMalformed, fmt::format("has the pre-tokenizer {}, which is not supported.", quote(name)), file,
              std::string(kHint));
}

struct Vocabulary {
  const std::vector<std::string>* tokens = nullptr;
  std::vector<int64_t> types;  // as many as tokens
};
Result<Vocabulary> vocabulary_of(const Gguf& gguf, const std::string& file) {
  Vocabulary out;
  const GgufValue* tokens = gguf.find("tokenizer.ggml.tokens");
  out.tokens = tokens ? std::get_if<std::vector<std::string>>(tokens) : nullptr;
  if (!out.tokens || out.tokens->empty())
    return fail(ErrorCode::kMalformed, "has no tokenizer.ggml.tokens.", file, std::string(kHint));
  for (size_t id = 0; id < out.tokens->size(); ++id)
    if (lossy_utf8((*out.tokens)[id]) != (*out.tokens)[id])
      return fail(ErrorCode::kMalformed, fmt::format("token {} is no valid UTF-8.", id), file, std::string(kHint));
  const GgufValue* types = gguf.find("tokenizer.ggml.token_type");
  if (const auto* list = types ? std::get_if<std::vector<int64_t>>(types) : nullptr) out.types = *list;
  if (types && out.types.size() != out.tokens->size())
    return fail(ErrorCode::kMalformed,
                fmt::format("has {} tokens and {} token types.", out.tokens->size(), out.types.size()), file,
                std::string(kHint));
  out.types.resize(out.tokens->size(), 1);
  return out;
}

Json added_tokens(const Vocabulary& vocabulary) {
  Json list = Json::array();
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kControl && type != kUserDefined) continue;
    list.push_back({{"id", id},
                    {"content", (*vocabulary.tokens)[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", type == kControl}});
  }
  return list;
}

Json vocabulary_json(const Vocabulary& vocabulary) {
  Json vocab = Json::object();
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) vocab[(*vocabulary.tokens)[id]] = id;
  return vocab;
}

// What is put around a text: bos, eos where the file asks for them.
Json post_processor(const Gguf& gguf, const Vocabulary& vocabulary, bool bos_by_default) {
  Json single = Json::array(), special = Json::object();
  const auto put = [&](const char* id_key) {
    const auto id = gguf.integer(id_key);
    if (!id || *id < 0 || *id >= static_cast<int64_t>(vocabulary.tokens->size())) return;
    const std::string& token = (*vocabulary.tokens)[static_cast<size_t>(*id)];
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    special[token] = {{"id", token}, {"ids", Json::array({*id})}, {"tokens", Json::array({token})}};
  };
  if (gguf.flag("tokenizer.ggml.add_bos_token").value_or(bos_by_default)) put("tokenizer.ggml.bos_token_id");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (gguf.flag("tokenizer.ggml.add_eos_token").value_or(false)) put("tokenizer.ggml.eos_token_id");
  if (special.empty()) return nullptr;
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

size_t character_bytes(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

// The merges that a SentencePiece vocabulary implies: every split of a piece into two pieces, best score first.
Json merges_of(const Vocabulary& vocabulary, const std::vector<double>& scores) {
  struct Merge {
    double score;
    size_t id, left, right;
  };
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) ids.emplace((*vocabulary.tokens)[id], id);
  std::vector<Merge> merges;
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const std::string_view piece = (*vocabulary.tokens)[id];
    if (piece.size() > 256) continue;  // longer than any learnt piece
    for (size_t at = 0; at < piece.size();) {
      at += character_bytes(static_cast<unsigned char>(piece[at]));
      if (at >= piece.size()) break;
      const auto left = ids.find(piece.substr(0, at)), right = ids.find(piece.substr(at));
      if (left != ids.end() && right != ids.end()) merges.push_back({scores[id], id, left->second, right->second});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(b.score, a.id, a.left, a.right) < std::tie(a.score, b.id, b.left, b.right);
  });
  Json list = Json::array();
  for (const Merge& merge : merges)
    list.push_back(Json::array({(*vocabulary.tokens)[merge.left], (*vocabulary.tokens)[merge.right]}));
  return list;
}

Result<Json> byte_level_bpe(const Gguf& gguf, const Vocabulary& vocabulary, const std::string& file) {
  SY_TRY(const Pre pre, pre_of(gguf, file));
  const GgufValue* merges = gguf.find("tokenizer.ggml.merges");
  const auto* list = merges ? std::get_if<std::vector<std::string>>(merges) : nullptr;
  if (!list) return fail(ErrorCode::kMalformed, "has no tokenizer.ggml.merges.", file, std::string(kHint));
  return Json{{"version", "1.0"},
              {"added_tokens", added_tokens(vocabulary)},
              {"normalizer", pre.normalizer},
              {"pre_tokenizer", pre.pre_tokenizer},
              {"post_processor", post_processor(gguf, vocabulary, false)},
              {"decoder", byte_level(true)},
              {"model",
               {{"type", "BPE"},
                {"byte_fallback", false},
                {"fuse_unk", false},
                {"ignore_merges", pre.ignore_merges},
                {"vocab", vocabulary_json(vocabulary)},
                {"merges", *list}}}};
}

Result<Json> sentencepiece_bpe(const Gguf& gguf, const Vocabulary& vocabulary, const std::string& file) {
  const GgufValue* scores = gguf.find("tokenizer.ggml.scores");
  const auto* list = scores ? std::get_if<std::vector<double>>(scores) : nullptr;
  if (!list || list->size() != vocabulary.tokens->size())
    return fail(ErrorCode::kMalformed, "has no tokenizer.ggml.scores for each token.", file, std::string(kHint));
  const auto unknown = static_cast<size_t>(std::max<int64_t>(gguf.integer("tokenizer.ggml.unknown_token_id").value_or(0), 0));
  if (unknown >= vocabulary.tokens->size())
    return fail(ErrorCode::kMalformed, "has an unknown_token_id outside its tokens.", file, std::string(kHint));
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const bool prefix = gguf.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  Json decoders = Json::array({{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                               {{"type", "ByteFallback"}},
                               {{"type", "Fuse"}}});
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return Json{{"version", "1.0"},
              {"added_tokens", added_tokens(vocabulary)},
              {"normalizer", prefix ? Json{{"type", "Sequence"},
                                           {"normalizers", Json::array({{{"type", "Prepend"}, {"prepend", "▁"}}, replace})}}
                                    : replace},
              {"pre_tokenizer", nullptr},
              {"post_processor", post_processor(gguf, vocabulary, true)},
              {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
              {"model",
               {{"type", "BPE"},
                {"unk_token", (*vocabulary.tokens)[unknown]},
                {"byte_fallback", true},
                {"fuse_unk", true},
                {"vocab", vocabulary_json(vocabulary)},
                {"merges", merges_of(vocabulary, *list)}}}};
}

}  // namespace

Result<Json> tokenizer_json_of(const Gguf& gguf, const std::string& file) {
  const auto kind = gguf.text("tokenizer.ggml.model");
  if (!kind) return fail(ErrorCode::kNotFound, "has no tokenizer.", file, std::string(kHint));
  if (*kind != "gpt2" && *kind != "llama")
    return fail(ErrorCode::kMalformed,
                fmt::format("has a tokenizer of kind {}, supported are gpt2 and llama.", quote(*kind)), file,
                std::string(kHint));
  SY_TRY(const Vocabulary vocabulary, vocabulary_of(gguf, file));
  return *kind == "gpt2" ? byte_level_bpe(gguf, vocabulary, file) : sentencepiece_bpe(gguf, vocabulary, file);
}

}  // namespace switchyard

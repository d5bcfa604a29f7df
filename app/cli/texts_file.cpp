// Sequences from a JSON Lines file, see texts_file.h.
#include "app/cli/texts_file.h"

#include <charconv>
#include <span>

#include <fmt/format.h>

#include "app/cli/text_input.h"
#include "engine/base/crc32c.h"
#include "engine/base/json.h"

namespace switchyard {
namespace {

Result<TextSequence> read_line(const JsonView& line, const Tokenizer* tokenizer, int vocab) {
  TextSequence sequence;
  SY_TRY(sequence.domain, line.text_or("domain", ""));
  SY_TRY(sequence.source_id, line.text_or("source_id", ""));
  SY_CHECK(line.text_or("cohort", ""));
  if (line.has("text") == line.has("token_ids")) return line.fail("needs either \"text\" or \"token_ids\".");
  if (line.has("text")) {
    if (!tokenizer) return line.fail("holds text, but the model's folder has no tokenizer.json.");
    SY_TRY(const std::string text, line.text("text"));
    SY_TRY(sequence.ids, tokenizer->encode(text));
    return sequence;
  }
  SY_TRY(const auto ids, line.array("token_ids"));
  for (const JsonView& id : ids) {
    SY_TRY(const int64_t value, id.as_integer(0, vocab - 1));
    sequence.ids.push_back(static_cast<TokenId>(value));
  }
  return sequence;
}

}  // namespace

uint64_t TextSequence::source_number(uint64_t place) const {
  if (source_id.empty()) return place;
  uint64_t number = 0;
  const auto [end, problem] = std::from_chars(source_id.data(), source_id.data() + source_id.size(), number);
  if (problem == std::errc() && end == source_id.data() + source_id.size()) return number;
  return crc32c(std::as_bytes(std::span(source_id)));
}

Result<std::vector<TextSequence>> read_texts(const std::string& file, const Tokenizer* tokenizer, int vocab) {
  SY_TRY(const std::string text, read_text(file));
  std::vector<TextSequence> sequences;
  int number = 0;
  for (size_t from = 0; from < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', from), text.size());
    std::string_view line = std::string_view(text).substr(from, end - from);
    from = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string where = fmt::format("{}:{}", file, number + 1);
    SY_TRY(const Json json, parse_json(line, where));
    SY_TRY(TextSequence sequence, read_line(JsonView(json, where), tokenizer, vocab));
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

}  // namespace switchyard

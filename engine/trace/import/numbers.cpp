// JSON arrays into plain numbers.
#include "engine/trace/import/numbers.h"

#include <charconv>

#include "engine/base/text.h"

namespace switchyard::dumps {
namespace {

constexpr size_t kLevels = 4;

tl::unexpected<Error> refuse(const std::string& where, const std::string& what) { return fail(ErrorCode::kMalformed, what, where); }

Result<void> walk(const Json& value, size_t level, Numbers& out, bool& shaped, const std::string& where) {
  if (!value.is_array()) {
    if (!value.is_number()) return refuse(where, "holds something else than numbers: " + quote(value.is_string() ? "a text" : value.type_name()) + ".");
    if (shaped && level != out.shape.size()) return refuse(where, "is not rectangular.");
    shaped = true;
    out.values.push_back(value.get<double>());
    return {};
  }
  if (level == kLevels) return refuse(where, "is nested deeper than " + std::to_string(kLevels) + " levels.");
  if (!shaped && out.shape.size() == level) out.shape.push_back(int64_t(value.size()));
  if (level >= out.shape.size() || out.shape[level] != int64_t(value.size())) return refuse(where, "is not rectangular.");
  for (const Json& item : value) SY_CHECK(walk(item, level + 1, out, shaped, where));
  return {};
}

bool by_lines(const OpenFile& file) {
  const std::string& name = file.name();
  for (const char* end : {".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"})
    if (name.ends_with(end)) return true;
  return false;
}

}  // namespace

Result<Numbers> numbers(const Json& value, const std::string& where) {
  Numbers out;
  bool shaped = false;
  SY_CHECK(walk(value, 0, out, shaped, where));
  uint64_t total = 1;
  for (const int64_t extent : out.shape) total *= uint64_t(extent);
  if (total != out.values.size()) return refuse(where, "is not rectangular.");
  return out;
}

Result<std::vector<ExpertId>> ids_of(const std::vector<double>& values, const std::string& where) {
  std::vector<ExpertId> ids;
  ids.reserve(values.size());
  for (const double value : values) {
    SY_TRY(const int64_t id, whole(value, -1, kNoExpert - 1, where));
    ids.push_back(id < 0 ? kNoExpert : ExpertId(id));
  }
  return ids;
}

Result<DumpTokens> tokens_of(const Numbers& ids, int token_axis, int layer_axis, int slot_axis, const std::string& where) {
  const size_t axes = slot_axis < 0 ? 2 : 3;
  if (ids.shape.size() != axes) return refuse(where, "has " + std::to_string(ids.shape.size()) + " axes, needs " + std::to_string(axes) + ".");
  const size_t tokens = size_t(ids.shape[size_t(token_axis)]), layers = size_t(ids.shape[size_t(layer_axis)]);
  const size_t slots = slot_axis < 0 ? 1 : size_t(ids.shape[size_t(slot_axis)]);
  if (layers > 2048 || slots > 4096 || tokens > UINT32_MAX)
    return refuse(where, "has " + std::to_string(tokens) + " tokens, " + std::to_string(layers) + " layers and " + std::to_string(slots) + " slots. Are the axes in another order?");
  SY_TRY(const std::vector<ExpertId> all, ids_of(ids.values, where));
  size_t strides[3] = {};
  for (size_t axis = axes, step = 1; axis-- > 0;) {
    strides[axis] = step;
    step *= size_t(ids.shape[axis]);
  }
  DumpTokens piece;
  piece.where = where;
  piece.tokens = uint32_t(tokens);
  piece.slots = int(slots);
  piece.ids.reserve(all.size());
  for (size_t layer = 0; layer < layers; ++layer) {
    piece.layers.push_back(int(layer));
    for (size_t token = 0; token < tokens; ++token)
      for (size_t slot = 0; slot < slots; ++slot)
        piece.ids.push_back(all[layer * strides[layer_axis] + token * strides[token_axis] + (slot_axis < 0 ? 0 : slot * strides[slot_axis])]);
  }
  return piece;
}

Result<void> for_each_line(const OpenFile& file, uint64_t line_cap, const OnLine& use) {
  LineReader lines(file, line_cap);
  std::string line;
  JsonLimits limits;
  limits.bytes = line_cap;
  for (;;) {
    SY_TRY(const bool more, lines.next(line));
    if (!more) return {};
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    SY_TRY(const Json document, parse_json(line, lines.place(), limits));
    SY_CHECK(use(document, lines.place(), lines.fraction(), lines.number()));
  }
}

Result<void> for_each_document(const OpenFile& file, uint64_t line_cap, const OnDocument& use) {
  if (!by_lines(file)) {
    SY_TRY(const std::string text, read_text(file, kMaxDocument));
    JsonLimits limits;
    limits.bytes = kMaxDocument;
    SY_TRY(const Json document, parse_json(text, file.name(), limits));
    return use(document, file.name(), 1);
  }
  return for_each_line(file, line_cap, [&](const Json& document, const std::string& place, double fraction, uint64_t) { return use(document, place, fraction); });
}

Result<std::string> base64(std::string_view text, const std::string& where) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  for (const char c : text) {
    int value = 0;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    else if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    else if (c >= '0' && c <= '9') value = c - '0' + 52;
    else if (c == '+') value = 62;
    else if (c == '/') value = 63;
    else return refuse(where, "holds " + quote(std::string(1, c)) + ", which is not base64.");
    bits = bits << 6 | uint32_t(value);
    if (++count == 4) {
      for (const int shift : {16, 8, 0}) out += char(bits >> shift & 0xFF);
      bits = 0;
      count = 0;
    }
  }
  if (count == 1) return refuse(where, "is base64 that is cut short.");
  if (count >= 2) out += char(bits >> (count == 2 ? 4 : 10) & 0xFF);
  if (count == 3) out += char(bits >> 2 & 0xFF);
  return out;
}

std::optional<int64_t> whole_text(std::string_view text) {
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::optional<int> number_after(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  const auto value = whole_text(text.substr(prefix.size()));
  return value && *value >= 0 && *value <= 65'535 ? std::optional(int(*value)) : std::nullopt;
}

}  // namespace switchyard::dumps

// Nested lists of numbers in JSON, and whole documents of a dump. Called by the readers of dumps.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/source.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {

inline constexpr uint64_t kMaxDocument = uint64_t(256) << 20;
inline constexpr uint64_t kLineCap = 64 << 10;       // of records of one layer or one token
inline constexpr uint64_t kLongLineCap = 64 << 20;   // of records of a whole sequence

// A rectangular array of at most four levels. where: "a.json: \"routed_experts\"".
Result<Numbers> numbers(const Json& value, const std::string& where);

// Ids out of numbers: -1 is an empty slot; others from 0 to 65,534.
Result<std::vector<ExpertId>> ids_of(const std::vector<double>& values, const std::string& where);

// Tokens out of an array of ids whose axes are the tokens, the MoE layers and the slots; slot_axis -1: one slot. Layers are
// numbered as the axis has them. Refuses more than 2,048 layers or 4,096 slots.
Result<DumpTokens> tokens_of(const Numbers& ids, int token_axis, int layer_axis, int slot_axis, const std::string& where);

// Each document of a file of lines, empty ones passed over. line_cap: bytes of a line. The place is "a.jsonl:12".
// fraction: of the file, so far; number: of the line, from 1.
using OnLine = std::function<Result<void>(const Json& document, const std::string& place, double fraction, uint64_t number)>;
Result<void> for_each_line(const OpenFile& file, uint64_t line_cap, const OnLine& use);

// Each document of a file: one of JSON, or one a line (.jsonl, .ndjson, .txt, with .gz or not, or more than one line that
// stands for itself). cap: of a line. The place is "a.jsonl:12".
using OnDocument = std::function<Result<void>(const Json& document, const std::string& place, double fraction)>;
Result<void> for_each_document(const OpenFile& file, uint64_t line_cap, const OnDocument& use);

// Standard base64, padding optional.
Result<std::string> base64(std::string_view text, const std::string& where);

// "layer_12" -> 12; nullopt: another text.
std::optional<int> number_after(std::string_view text, std::string_view prefix);
std::optional<int64_t> whole_text(std::string_view text);

}  // namespace switchyard::dumps

// A line of CSV a slot: sequence,position,token_id,layer,slot,expert,weight. Numbers only, so nothing is to be quoted;
// weights with the fewest digits that give the same float again. Empty slots are left out.
#include <algorithm>
#include <charconv>
#include <string>

#include <switchyard/plugin.hpp>

struct SlotsCsv : sy::Writer {
  void write(const sy_trace& trace, const std::function<void(std::string_view)>& out) override {
    const std::string word = sy::host().setting("separator");
    const char separator = word == "semicolon" ? ';' : word == "tab" ? '\t' : ',';
    std::string text = "sequence,position,token_id,layer,slot,expert,weight\n";
    std::replace(text.begin(), text.end(), ',', separator);
    const auto add = [&](auto number, char end) {
      char digits[32];
      text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
      text += end;
    };
    constexpr uint64_t kAtOnce = 4096;
    for (uint32_t row = 0; row < trace.rows; ++row) {
      for (uint64_t first = 0; first < trace.tokens; first += kAtOnce) {
        const uint64_t count = std::min(kAtOnce, trace.tokens - first);
        const auto ids = values<int32_t>(trace, SY_FIELD_ID, row, first, count, trace.k);
        const auto weights = values<float>(trace, SY_FIELD_WEIGHT, row, first, count, trace.k);
        const auto tokens = values<int32_t>(trace, SY_FIELD_TOKEN_ID, row, first, count, 1);
        const auto positions = values<uint32_t>(trace, SY_FIELD_POSITION, row, first, count, 1);
        const auto sequences = values<uint32_t>(trace, SY_FIELD_SEQUENCE, row, first, count, 1);
        for (size_t i = 0; i < ids.size(); ++i) {
          if (ids[i] < 0) continue;
          const size_t t = i / trace.k;
          add(sequences[t], separator), add(positions[t], separator), add(tokens[t], separator);
          add(trace.layers[row], separator), add(i % trace.k, separator), add(ids[i], separator);
          add(weights[i], '\n');
        }
        out(text);
        text.clear();
      }
    }
    if (!text.empty()) out(text);  // a trace without tokens
  }
};

SWITCHYARD_PLUGIN(plugin) {
  plugin.writer<SlotsCsv>("slots-csv.csv");
}

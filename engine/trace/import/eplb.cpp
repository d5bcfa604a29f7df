// The state of vLLM's expert parallel load balancer (formats.md F3): counts by physical expert over a window of passes.
#include <memory>

#include "engine/base/text.h"
#include "engine/trace/import/counting.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/pickle.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

// map [layers, physical] -> logical, window [passes, layers, physical].
Result<void> give(const Numbers& map, const Numbers& window, const std::string& where, DumpSink& sink) {
  if (map.shape.size() != 2 || window.shape.size() != 3 || map.shape[0] != window.shape[1])
    return fail(ErrorCode::kMalformed, "\"physical_to_logical_map\" needs [layers, physical], \"expert_load_window\" [passes, layers, physical].", where);
  if (map.shape[1] != window.shape[2]) {
    return fail(ErrorCode::kMalformed, "\"expert_load_window\" has " + std::to_string(window.shape[2]) + " physical experts, the map " + std::to_string(map.shape[1]) +
                                           ": the counts of one rank only.", where, "Gather the windows of all ranks along the last axis.");
  }
  const size_t layers = size_t(map.shape[0]), physical = size_t(map.shape[1]);
  int64_t experts = 0;
  for (const double value : map.values) {
    SY_TRY(const int64_t logical, whole(value, 0, kNoExpert - 1, where + ": \"physical_to_logical_map\""));
    experts = std::max(experts, logical + 1);
  }
  Numbers counts{{window.shape[0], int64_t(layers), experts}, {}};
  if (uint64_t(window.shape[0]) * layers * uint64_t(experts) > kMaxValues) return fail(ErrorCode::kMalformed, "holds more passes than fit into memory.", where);
  counts.values.resize(size_t(window.shape[0]) * layers * size_t(experts));
  for (size_t i = 0; i < window.values.size(); ++i) {
    const size_t row = i / physical, layer = row % layers;  // row: pass and layer
    counts.values[row * size_t(experts) + size_t(map.values[layer * physical + i % physical])] += window.values[i];
  }
  sink.facts.ordinal_layers = true;
  sink.facts.note("physical experts were added up to logical ones by the state's own map");
  return give_counts(counts, where, sink);
}

}  // namespace

bool recognises_eplb(const DumpSource& source) {
  return !source.is_folder() && source.start_of(source.names().front(), 64 << 10).find("expert_load_window") != std::string::npos;
}

Result<void> read_eplb(const DumpSource& source, const ImportOptions&, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; the state is one file.", source.shown());
  const std::string& name = source.names().front();
  SY_TRY(OpenFile opened, source.file(name));
  const auto file = std::make_shared<const OpenFile>(std::move(opened));
  if (name.ends_with(".json")) {
    return for_each_document(*file, kLongLineCap, [&](const Json& document, const std::string& place, double) -> Result<void> {
      for (const char* key : {"physical_to_logical_map", "expert_load_window"})
        if (!document.is_object() || !document.contains(key)) return fail(ErrorCode::kMalformed, "has no " + quote(key) + ".", place);
      SY_TRY(const Numbers map, numbers(document["physical_to_logical_map"], place));
      SY_TRY(const Numbers window, numbers(document["expert_load_window"], place));
      return give(map, window, place, sink);
    });
  }
  SY_TRY(const Pickle pickle, open_pickle(file));
  SY_TRY(const Numbers map, pickle.numbers_at(pickle.root(), "physical_to_logical_map"));
  SY_TRY(const Numbers window, pickle.numbers_at(pickle.root(), "expert_load_window"));
  return give(map, window, name, sink);
}

}  // namespace switchyard::dumps

// Routing dumps of other programs: what a reader of one hands over, and what is known of each format
// (design: formats.md section 4). Readers run in the importer's child process, twice over the same files: once to
// measure, once to write. They hold no more than one piece of a sequence where the format allows that.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/trace/trace.h"

namespace switchyard::dumps {

class DumpSource;

// What the user says of a dump. 0, empty: what the file says, or the format's default.
struct ImportOptions {
  int experts = 0;               // E
  int top_k = 0;                 // k
  int layers = 0;                // routing rows of a token, where a payload has no shape
  std::vector<int> moe_layers;   // model layers of the rows, where the dump counts MoE layers only
  uint64_t line_bytes = 0;       // cap of one line of JSONL
  enum class RouterOutput : uint8_t { kAsk, kLogits, kProbabilities } router_output = RouterOutput::kAsk;
};

// Some consecutive tokens of one sequence.
struct DumpTokens {
  std::string where;            // "trace.jsonl:12", for messages
  std::vector<int> layers;      // of each row of this piece, as the dump numbers them; none twice
  uint32_t tokens = 0;
  int slots = 0;
  std::vector<ExpertId> ids;    // [layers, tokens, slots]; kNoExpert: empty
  std::vector<double> weights;  // the same, as read; or empty
  int logit_experts = 0;
  std::vector<float> logits;    // [layers, tokens, logit_experts]; or empty
  std::vector<uint32_t> token_ids, positions;  // [tokens] each; or empty
  std::vector<uint8_t> phases;                 // 0 prefill, 1 decode

  size_t at(size_t layer, size_t token) const { return (layer * tokens + token) * size_t(slots); }
};

// Sums over all tokens.
struct DumpCounts {
  std::string where;
  std::vector<int> layers;  // of each row
  int experts = 0;
  uint64_t tokens = 0;      // 0: not told
  int top_k = 0;            // 0: not told
  TraceCounts sums;

  // Rows and /agg/count of counts by layer and expert, every expert below `experts`.
  void set(const std::map<int, std::map<int, uint64_t>>& by_layer) {
    for (const auto& [layer, row] : by_layer) {
      layers.push_back(layer);
      const size_t at = sums.count.size();
      sums.count.resize(at + size_t(experts));
      for (const auto& [expert, count] : row) sums.count[at + size_t(expert)] = count;
    }
  }
};

// What a reader finds out on its way, for the header of the trace.
struct DumpFacts {
  bool ordinal_layers = false;  // rows are numbered among the MoE layers, not as the model numbers its layers
  bool ranked = false;          // slots are by falling weight though no weights are there
  std::optional<bool> renormalised;  // weights of a token sum to 1; absent: measured
  int experts = 0;              // E, where the dump states it
  std::string model;            // its name, where the dump states it
  std::vector<std::string> notes;
  nlohmann::ordered_json kept = nlohmann::ordered_json::object();  // of the source, for /meta/run: placement maps

  void note(const std::string& text);  // once each
};

class DumpSink {
 public:
  virtual ~DumpSink() = default;
  // prompt_tokens 0, domain empty: not told.
  virtual Result<void> begin_sequence(uint32_t prompt_tokens, const std::string& domain) = 0;
  Result<void> begin_sequence(uint32_t prompt_tokens) { return begin_sequence(prompt_tokens, {}); }
  virtual Result<void> tokens(const DumpTokens& piece) = 0;
  virtual Result<void> counts(const DumpCounts& counts) = 0;
  void progress(double fraction) const;  // of the files; also says that the reader is alive
  DumpFacts facts;

 protected:
  explicit DumpSink(const char* step) : step_(step) {}

 private:
  const char* step_;  // a literal
};

struct DumpFormat {
  const char* name;     // of --from
  const char* title;
  const char* reads;    // which files, in words
  const char* lacks;    // what such dumps never hold, in words
  std::function<bool(const DumpSource& source)> recognises;
  std::function<Result<void>(const DumpSource& source, const ImportOptions& options, DumpSink& sink)> read;
};

std::span<const DumpFormat> formats();
// From outside the engine, tried after the others; texts they point to live as long as the program. Once, before threads start.
void add_formats(std::vector<DumpFormat> more);
const DumpFormat* find_format(std::string_view name);

// One function pair a format, each in a file of its own.
#define SWITCHYARD_DUMP_FORMAT(name)            \
  bool recognises_##name(const DumpSource&);    \
  Result<void> read_##name(const DumpSource&, const ImportOptions&, DumpSink&)
SWITCHYARD_DUMP_FORMAT(esft);
SWITCHYARD_DUMP_FORMAT(sglang);
SWITCHYARD_DUMP_FORMAT(vllm);
SWITCHYARD_DUMP_FORMAT(eplb);
SWITCHYARD_DUMP_FORMAT(megatron);
SWITCHYARD_DUMP_FORMAT(olmoe);
SWITCHYARD_DUMP_FORMAT(exflow);
SWITCHYARD_DUMP_FORMAT(moe_lrc);
SWITCHYARD_DUMP_FORMAT(imatrix);
SWITCHYARD_DUMP_FORMAT(csv);
SWITCHYARD_DUMP_FORMAT(reap);
SWITCHYARD_DUMP_FORMAT(moe_vis);
SWITCHYARD_DUMP_FORMAT(moe_atlas);
SWITCHYARD_DUMP_FORMAT(gpt_oss);
SWITCHYARD_DUMP_FORMAT(plumb);
#undef SWITCHYARD_DUMP_FORMAT

}  // namespace switchyard::dumps

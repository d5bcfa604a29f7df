// An analysis over a whole trace, and the one list of all of them (specs/analyses.md; JSON: specs/cli-json.md). The
// command line, the window and reports run what stands here; the trace room walks the file and feeds them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/analysis/options.h"
#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

// What is walked: a trace, or the chosen rows of it.
struct TraceShape {
  int rows = 0, experts = 0, k = 0;
  uint64_t tokens = 0, sequences = 0;
  std::vector<int> layers;               // model layer of each row
  std::vector<std::string> row_names;    // "layer 3 · pass 2"; empty: one row a layer
  std::vector<std::string> domains;      // names; index = RoutingSlab::domain
  std::vector<std::string> fields;       // recorded, "/routing/weight"
  int sides = 1;                         // 2: rows of an encoder and of a decoder, see RoutingSlab::begin_row
  bool ranked = true;                    // slots by falling weight; false: the source did not tell
  bool counts_only = false;              // no tokens, only how often each expert was chosen
};

class Analysis {
 public:
  virtual ~Analysis() = default;
  virtual int walks() const { return 1; }  // how often the trace is fed from its start
  // Before each walk, 0 first. One thread.
  virtual Result<void> begin(int walk) { static_cast<void>(walk); return {}; }
  // Slabs in order. Different rows of a slab may come from different threads, a row from one at a time.
  virtual Result<void> feed(int walk, const RoutingSlab& slab, int row) = 0;
  // In the place of walks where the trace holds counts only: [E] of a row, once for each trace. tokens: 0 where the dump
  // does not tell. Only of analyses that AnalysisInfo::counts_do names.
  virtual Result<void> take_counts(int row, std::span<const uint64_t> counts, uint64_t tokens) {
    static_cast<void>(row), static_cast<void>(counts), static_cast<void>(tokens);
    return fail(ErrorCode::kInternal, "an analysis was given counts that it cannot take.");
  }
  // After the last walk, before result(), by who asks for the result: what may still fail. One thread.
  virtual Result<void> finish() { return {}; }
  // The fields of the JSON object beside "analysis", "schema" and "trace". One thread.
  virtual nlohmann::ordered_json result() = 0;
};

struct AnalysisInfo {
  const char* name;      // "load"
  const char* section;   // of specs/analyses.md: "A1"
  const char* title;     // one line for lists and help
  std::vector<const char*> needs;    // datasets without which it is refused
  std::vector<const char*> instead;  // of all of them these do, where they are given
  std::vector<const char*> uses;     // further ones that it reads where they are
  bool needs_rank = false;           // refused where the order of slots is unknown
  bool counts_do = false;            // /agg/count alone is enough
  std::vector<const char*> options;  // names of analysis_options() that it heeds
  std::function<Result<std::unique_ptr<Analysis>>(const TraceShape&, const AnalysisOptions&)> make;
};
std::span<const AnalysisInfo> analyses();
// From outside the engine; texts they point to live as long as the program. Once, before threads start.
void add_analyses(std::vector<AnalysisInfo> more);
const AnalysisInfo* find_analysis(std::string_view name);
// Datasets that `info` needs and the trace does not hold.
std::vector<std::string> missing_fields(const AnalysisInfo& info, const TraceShape& shape);
// Makes it, or says why the trace does not do for it.
Result<std::unique_ptr<Analysis>> make_analysis(const AnalysisInfo& info, const TraceShape& shape, const AnalysisOptions& options);

}  // namespace switchyard

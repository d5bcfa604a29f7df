// An analysis over a whole trace, and the one list of all of them (specs/analyses.md; JSON: specs/cli-json.md). The
// command line, the window and reports run what stands here; the trace room walks the file and feeds them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

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
  bool ranked = true;                    // slots by falling weight; false: the source did not tell
};

struct AnalysisOptions {
  int top = 10;                        // entries of a list
  std::vector<int> gpus;               // affinity: shares of hops that stay, for so many GPUs
  std::vector<int> windows{4, 16, 64}; // srp
  int resamples = 1000;                // bootstrap; 0: no intervals
  uint64_t seed = 0;                   // of resampling
  double threshold = 0.2;              // esft
  std::string score = "token";         // esft: token or gate
  int decimals = 4;                    // esft
  uint64_t min_count = 8;              // vocabulary
  int batch_tokens = 0;                // load: MaxVio of batches of consecutive tokens; 0: none
  bool neighbours = false;             // coactivation: pairs of neighbouring ranks only
  bool matrices = false;               // coactivation: all pairs, not only the strongest
  bool renormalise = true;             // saliency: weights divided by their sum over the token
  int keep = 0;                        // saliency: experts that stay; 0: no pruned sets
  std::string domain_a, domain_b;      // cohort
};

class Analysis {
 public:
  virtual ~Analysis() = default;
  virtual int walks() const { return 1; }  // how often the trace is fed from its start
  // Before each walk, 0 first. One thread.
  virtual Result<void> begin(int walk) { static_cast<void>(walk); return {}; }
  // Slabs in order. Different rows of a slab may come from different threads, a row from one at a time.
  virtual Result<void> feed(int walk, const RoutingSlab& slab, int row) = 0;
  // After the last walk: the fields of the JSON object beside "analysis", "schema" and "trace". One thread.
  virtual nlohmann::ordered_json result() = 0;
};

struct AnalysisInfo {
  const char* name;      // "load"
  const char* section;   // of specs/analyses.md: "A1"
  const char* title;     // one line for lists and help
  std::vector<const char*> needs;    // datasets without which it is refused
  std::vector<const char*> uses;     // further ones that it reads where they are
  bool needs_rank = false;           // refused where the order of slots is unknown
  std::vector<const char*> options;  // of AnalysisOptions, as the command line names them
  Result<std::unique_ptr<Analysis>> (*make)(const TraceShape&, const AnalysisOptions&);
};
std::span<const AnalysisInfo> analyses();
const AnalysisInfo* find_analysis(std::string_view name);
// Datasets that `info` needs and the trace does not hold.
std::vector<std::string> missing_fields(const AnalysisInfo& info, const TraceShape& shape);
// Makes it, or says why the trace does not do for it.
Result<std::unique_ptr<Analysis>> make_analysis(const AnalysisInfo& info, const TraceShape& shape, const AnalysisOptions& options);

}  // namespace switchyard

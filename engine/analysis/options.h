// What the analyses can be told, in one table from which the command line and the window make their options. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

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

struct AnalysisOption {
  const char* name;      // "min-count": --min-count, and AnalysisInfo::options
  const char* standard;  // as text; nullptr: a switch, off
  const char* help;
  Result<void> (*set)(AnalysisOptions&, std::string_view value);
};
std::span<const AnalysisOption> analysis_options();
// value: of a switch, ignored. Refused, with what would fit: an unknown name, a value that does not fit.
Result<void> set_option(AnalysisOptions& options, std::string_view name, std::string_view value);

}  // namespace switchyard

// Speed of a backend on a model and its share of what the machine can read: `switchyard bench`.
// Runs on the calling thread (a job or the command line) for some seconds; drives Backend::forward
// itself, so that nothing but the forward pass, the choice of a token and the recording is in the figures.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/routing/recipe.h"
#include "engine/trace/sink.h"

namespace switchyard {

struct BenchOptions {
  int prompt_tokens = 128;
  int new_tokens = 128;             // decoded per repeat after the prompt, fixed ids spread over the vocabulary
  int repeat = 5;                   // rounds; every round measures every setting once, in turn
  int threads = 0;                  // of the read probe; give the backend's. 0: one per core
  std::shared_ptr<TraceSink> sink;  // given: decoding is also measured while recording to it, then it is closed
  std::optional<Recipe> edited;     // given: decoding is also measured under it
};

struct Spread {  // over the rounds
  double median = 0, min = 0, max = 0;
};
Spread spread_of(std::vector<double> values);  // not empty

struct Machine {
  std::string processor;  // "AMD EPYC"
  int cores = 0;          // that this process may use
  uint64_t memory_bytes = 0;
  std::string kernel;    // "Linux 6.1.0 x86_64"
  std::string compiler;  // of this program
};
Machine this_machine();

struct ReadCeiling {
  uint64_t bytes = 0;          // of the buffer that is read over and over: as large as the weights, at most 1 GiB
  double gb_per_s = 0;         // fastest pass over it, 10^9 bytes per second
  double memory_gb_per_s = 0;  // the same for 512 MiB, more than any cache holds
};
// Plain reading with `threads` threads (0: one per core).
ReadCeiling read_ceiling(uint64_t bytes, int threads);

// What a setting costs. Settings but "recorded" decode the same tokens one by one in turn, so that what the machine does
// meanwhile meets all of them: the cost is then the median over the tokens of 1 - time of the other / time, with a
// bootstrap interval of 95 %. "recorded" writes in the background and is measured apart: 1 - median / median of "off".
// Slightly negative by chance.
struct Cost {
  double share = 0;  // of the speed of the other
  std::optional<double> low, high;
};
// times: seconds of the same tokens under the other setting and under this one; as many, at least one.
Cost paired_cost(const std::vector<double>& other, const std::vector<double>& times);

struct Watched {
  std::string level;    // "off", "ids", "logits", "recorded"; "edited"
  Spread tokens_per_s;  // decoding
  Cost cost;            // against "off"; of "edited" against "logits", which captures as much
};

struct BenchResult {
  Machine machine;
  BackendInfo backend;
  int threads = 0;
  int prompt_tokens = 0, new_tokens = 0, repeat = 0;
  ReadCeiling ceiling;
  Spread prefill_tokens_per_s;   // logits of the last token, routing captured
  Spread decode_tokens_per_s;    // routing with logits captured, as the program runs
  uint64_t bytes_per_token = 0;  // weights read for one token: dense parts and k experts of every layer
  double share_of_ceiling = 0;   // bytes_per_token * decode median / ceiling
  Spread layers_per_s;           // tokens through the layers alone: no capture, no logits
  uint64_t layer_bytes_per_token = 0;  // bytes_per_token less the output matrix
  double layers_share_of_ceiling = 0;
  std::vector<Watched> capture;
  std::optional<Watched> edited;
  double other_load = 0;  // share of the machine that other programs used meanwhile
  bool noisy = false;     // more than 3 %: no claim should be made from these figures
};

// Weights one token reads, as the cpu backend holds them: in the file, plain or in blocks, or decoded.
uint64_t weight_bytes_per_token(const ModelPlan& plan);

// kUsage where prompt and new tokens exceed the model's context.
Result<BenchResult> bench(const Checkpoint& checkpoint, Backend& backend, const BenchOptions& options,
                          Task* task = nullptr);

}  // namespace switchyard

// Speed of a backend on a model and its share of what the machine can read: `switchyard bench`.
// Runs on the calling thread (a job or the command line) for some seconds; drives Backend::forward
// itself, so that nothing but the forward pass, the choice of a token and the recording is in the figures.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/sink.h"

namespace switchyard {

struct BenchOptions {
  int prompt_tokens = 128;
  int new_tokens = 128;             // decoded per repeat after the prompt, fixed ids spread over the vocabulary
  int repeat = 5;                   // rounds; every round measures every setting once, in turn
  int threads = 0;                  // of the read probe; give the backend's. 0: one per core
  std::shared_ptr<TraceSink> sink;  // given: decoding is also measured while recording to it, then it is closed
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

struct CaptureCost {
  std::string level;    // "off", "ids", "logits", "recorded"
  Spread tokens_per_s;  // decoding
  double cost = 0;      // 1 - median / median of "off"; may be slightly negative
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
  std::vector<CaptureCost> capture;
  double other_load = 0;  // share of the machine that other programs used meanwhile
  bool noisy = false;     // more than 3 %: no claim should be made from these figures
};

// Weights one token reads, as the cpu backend holds them: in the file, plain or in blocks, or decoded.
uint64_t weight_bytes_per_token(const ModelPlan& plan);

// kUsage where prompt and new tokens exceed the model's context.
Result<BenchResult> bench(const Checkpoint& checkpoint, Backend& backend, const BenchOptions& options,
                          Task* task = nullptr);

}  // namespace switchyard

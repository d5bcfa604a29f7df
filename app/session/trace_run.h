// A recorded trace as something the window can show: frames, texts and epochs of one of its sequences.
// Loaded by a job (any thread); a value afterwards.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/plan.h"
#include "engine/runtime/session.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/trace/trace.h"
#include "views/view.h"

namespace switchyard {

struct TraceRun {
  TraceInfo info;
  ModelPlan plan;                              // routing rows only: enough to draw, not to run
  bool model_at_hand = false;                  // the plan is the model's own
  std::vector<RouterTensors> router_tensors;   // of the model at hand; may be empty
  std::shared_ptr<const Tokenizer> tokenizer;  // nullptr: the model is not on this machine; ids are shown
  std::vector<std::shared_ptr<const RoutingFrame>> frames;
  std::shared_ptr<const SessionSnapshot> snapshot;  // finished; epochs and ids of the sequence
  uint64_t sequences = 0, sequence = 0;             // shown: [sequence] of [sequences]
  uint64_t tokens_left_out = 0;                     // beyond what fits the byte budget, at the end
};

// sequence: which one to show. Frames beyond `byte_budget` are left out and counted.
Result<TraceRun> load_trace_run(const std::filesystem::path& path, uint64_t sequence = 0, Task* task = nullptr,
                                size_t byte_budget = size_t(512) << 20);

}  // namespace switchyard

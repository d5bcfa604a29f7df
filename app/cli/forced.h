// What run --dump-logits and score share: choosing a backend, and walking a sequence in chunks of logits that
// stay small beside the weights. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/runtime/forced_pass.h"

namespace switchyard {

struct BackendChoice {
  std::string name = "auto";
  int threads = 0;

  void add_options(CLI::App& app);
  Result<void> check() const;
  // context: tokens that the caches will hold, for the check that all fits in memory; 0: they do not count. A layer path
  // among the edits counts in it.
  Result<std::unique_ptr<Backend>> open(const Checkpoint& checkpoint, Task& task, int64_t context = 0,
                                        const std::vector<EditCommand>& edits = {}) const;
};

// What a user should know of a model that couples the tokens that run together; empty: it does not.
std::string coupling_note(const ModelPlan& plan);

// Calls `take` with consecutive parts of `tokens` and a buffer [part, vocab] for their logits (at most 64 MiB,
// at least one token); with all of them where the model couples the tokens that run together.
Result<void> in_chunks(std::span<const TokenId> tokens, const ModelPlan& plan,
                       const std::function<Result<void>(std::span<const TokenId>, std::span<float>)>& take);

}  // namespace switchyard

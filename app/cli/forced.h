// What run --dump-logits, score and others that run a given text share: choosing a backend. Main thread.
#pragma once

#include <memory>
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
  // context: tokens that the caches will hold, for the check that all fits in memory; 0: they do not count. A layer path
  // among the edits counts in it.
  Result<std::unique_ptr<Backend>> open(const Checkpoint& checkpoint, Task& task, int64_t context = 0,
                                        const std::vector<EditCommand>& edits = {}) const;
};

// What a user should know of a model that couples the tokens that run together; empty: it does not.
std::string coupling_note(const ModelPlan& plan);

}  // namespace switchyard

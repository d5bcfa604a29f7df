// What run --dump-logits and score share, see forced.h.
#include "app/cli/forced.h"

#include <algorithm>

#include "app/cli/edits_input.h"
#include "app/cli/help.h"
#include "engine/model/limits.h"

namespace switchyard {

void BackendChoice::add_options(CLI::App& app) {
  app.add_option("--backend", name, "auto, reference, cpu or cuda")
      ->check(CLI::IsMember({"auto", "reference", "cpu", "cuda"}))
      ->type_name("NAME");
  app.add_option("--threads", threads, "Worker threads; 0: one per core")->check(whole_number(0, 1024))->type_name("N");
}

Result<std::unique_ptr<Backend>> BackendChoice::open(const Checkpoint& checkpoint, Task& task, int64_t context,
                                                     const std::vector<EditCommand>& edits) const {
  SY_TRY(auto weights, WeightStore::open(checkpoint, &task));
  return make_backend(name, checkpoint, std::move(weights),
                      {.threads = threads, .context = static_cast<int>(std::min<int64_t>(context, kMaxContext)),
                       .passes = recipe_spans(edits, checkpoint.plan).front().recipe->path.passes},
                      &task);
}

std::string coupling_note(const ModelPlan& plan) {
  if (!plan.couples_tokens()) return {};
  return "routing depends on which tokens run together (expert capacity): the prompt runs in one piece.";
}

}  // namespace switchyard

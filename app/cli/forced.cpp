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

Result<void> BackendChoice::check() const {
  if (name == "cuda") return not_yet("--backend", "cuda backend", "Use cpu or reference.");
  return {};
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

Result<void> in_chunks(std::span<const TokenId> tokens, const ModelPlan& plan,
                       const std::function<Result<void>(std::span<const TokenId>, std::span<float>)>& take) {
  constexpr size_t kFloats = size_t{16} << 20, kMostTokens = 256;
  const auto width = static_cast<size_t>(plan.vocab);
  const size_t chunk =
      plan.couples_tokens() ? std::max(tokens.size(), size_t{1}) : std::clamp(kFloats / width, size_t{1}, kMostTokens);
  std::vector<float> logits(std::min(chunk, tokens.size()) * width);
  for (size_t from = 0; from < tokens.size(); from += chunk) {
    const size_t count = std::min(chunk, tokens.size() - from);
    SY_CHECK(take(tokens.subspan(from, count), std::span(logits).first(count * width)));
  }
  return {};
}

}  // namespace switchyard

// Adaptation of a running session: its commands, and its steps between tokens. Engine thread.
#include <fmt/format.h>

#include "engine/backend/differentiable.h"
#include "engine/runtime/live_session.h"

namespace switchyard {

void LiveSession::handle(StartAdaptation& start) {
  const auto fits = [&]() -> Result<void> {
    SY_CHECK(validate(start.plan, checkpoint_.plan));
    if (start.plan.options.method == AdaptMethod::kRewire && !dynamic_cast<Differentiable*>(backend_.get()))
      return fail(ErrorCode::kUsage, "the " + backend_->info().name + " backend has no gradients.", "adaptation",
                  "Open the model with the backend reference, or choose the method spsa.");
    if (start.plan.options.method == AdaptMethod::kEma && !weights_)
      return fail(ErrorCode::kUsage, "the router's rows are not at hand, from which the centres start.", "adaptation");
    return {};
  };
  if (auto ok = fits(); !ok) return report(std::move(ok).error());
  adaptor_.emplace(std::move(start.plan), ledger_.recipe(), has_sequence() ? position() : 0);
}

void LiveSession::handle(const FreezeAdaptation& freeze) {
  using Phase = LiveAdaptor::Phase;
  if (!adaptor_ || (adaptor_->phase() != Phase::kActive && adaptor_->phase() != Phase::kFrozen))
    return report({ErrorCode::kUsage, "no adaptation is going on.", "adaptation", "Start one."});
  adaptor_->set_phase(freeze.frozen ? Phase::kFrozen : Phase::kActive);
}

void LiveSession::handle(const RevertAdaptation&) {
  if (!adaptor_) return report({ErrorCode::kUsage, "there is no adaptation to revert.", "adaptation", {}});
  go_back_before_adaptation("Adaptation · reverted");
  adaptor_->set_phase(LiveAdaptor::Phase::kReverted);
}

// As one entry of the history. Where the user has taken back or changed the same places since, they end as before too.
void LiveSession::go_back_before_adaptation(const char* name) {
  std::vector<EditCommand> edits = adaptor_->way_back(checkpoint_.plan);
  Recipe after = *ledger_.recipe();
  for (const EditCommand& command : edits) apply(command.edit, checkpoint_.plan, after);
  if (after.layers != ledger_.recipe()->layers) {
    if (auto added = ledger_.add(std::move(edits), "adaptor", Clock::now(), name); !added) return report(std::move(added).error());
  }
  adaptor_->went_back();
}

int LiveSession::steps_taken(bool* here) const {
  int taken = 0;
  if (here) *here = false;
  if (!adaptor_ || branches_.empty()) return 0;
  uint64_t until = position();
  uint32_t branch = branch_;
  while (true) {
    for (const AdaptationEntry& entry : adaptor_->log()) {
      if (entry.sequence != sequence_ || entry.branch != branch || entry.token > until) continue;
      ++taken;
      if (here && entry.token == position()) *here = true;
    }
    const Branch& shown = branches_[branch].shown;
    if (!shown.parent) return taken;
    until = std::min(until, shown.fork_token);
    branch = *shown.parent;
  }
}

bool LiveSession::adaptation_due() const {
  if (!adaptor_ || known_tokens() < 2 || !adaptor_->scheduled(position(), prompt_.size())) return false;
  bool here = false;
  return steps_taken(&here) < adaptor_->plan().max_steps && !here;
}

void LiveSession::take_adaptation_step() {
  const std::shared_ptr<Task> task = queue_.begin_work(false);
  if (!task) return;  // a command waits
  const auto began = Clock::now();
  const int number = steps_taken() + 1;
  std::vector<TokenId> tokens;
  for (uint64_t i = 0; i < known_tokens(); ++i) tokens.push_back(token(i));
  const std::shared_ptr<const Recipe> start = ledger_.recipe();
  adaptor_->begin_step();
  publish(true);
  const auto on_step = [this](const AdaptStep& step) {
    adaptor_->iterated(step);
    publish(true);
  };
  Result<Adaptation> found = adapt({.backend = *backend_, .plan = checkpoint_.plan, .tokens = tokens, .start = *start, .base = &adaptor_->base(),
                                    .weights = weights_.get(), .on_step = on_step},
                                   adaptor_->plan().options, task.get());
  queue_.end_work();
  if (!found && found.error().code == ErrorCode::kCancelled && task->cancelled()) return adaptor_->give_up_step();
  if (found && !found->edits.empty()) {
    auto added = ledger_.add(found->edits, "adaptor", Clock::now(), fmt::format("Adaptation · step {}", number));
    if (!added) found = tl::unexpected<Error>(std::move(added).error());
  }
  if (!found) {
    adaptor_->give_up_step();
    adaptor_->set_phase(LiveAdaptor::Phase::kFailed, found.error().message());
    return report(std::move(found).error());
  }
  adaptor_->end_step({.number = number, .sequence = sequence_, .branch = branch_, .token = position(), .context = tokens.size(),
                      .loss_before = found->loss_before, .loss_after = found->loss_after, .rerouted = found->rerouted,
                      .path_distance = found->path_distance, .norms = std::move(found->norms), .iterations = std::move(found->steps),
                      .edits = found->edits.size(), .seconds = std::chrono::duration<double>(Clock::now() - began).count()},
                     found->edits);
}

}  // namespace switchyard

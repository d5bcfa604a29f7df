#include "engine/runtime/command_queue.h"

#include <algorithm>

namespace switchyard {
namespace {

// A single edit for now: what a drag sends again and again.
const EditCommand* live_edit(const Command& command) {
  const auto* request = std::get_if<EditRequest>(&command);
  return request && !request->script && !request->edits[0].at_token ? &request->edits[0] : nullptr;
}

}  // namespace

bool CommandQueue::cuts_short(const Command& command) const {
  const auto* transport = std::get_if<TransportCommand>(&command);
  if (!transport) return false;
  return std::holds_alternative<Start>(*transport) || std::holds_alternative<Stop>(*transport) ||
         std::holds_alternative<Reset>(*transport) || ((std::holds_alternative<Pause>(*transport) || std::holds_alternative<Rewind>(*transport) ||
           std::holds_alternative<SwitchBranch>(*transport) || std::holds_alternative<StartAdaptation>(*transport) ||
           std::holds_alternative<FreezeAdaptation>(*transport) || std::holds_alternative<RevertAdaptation>(*transport)) && !decode_);
}

void CommandQueue::push(Command command) {
  {
    const std::scoped_lock lock(mutex_);
    const EditCommand* edit = live_edit(command);
    const EditCommand* last = commands_.empty() ? nullptr : live_edit(commands_.back());
    if (edit && last && !tag(edit->edit).empty() && tag(edit->edit) == tag(last->edit) &&
        std::get<EditRequest>(command).author == std::get<EditRequest>(commands_.back()).author) {
      std::get<EditRequest>(command).calls += std::get<EditRequest>(commands_.back()).calls;
      commands_.back() = std::move(command);
    } else {
      commands_.push_back(std::move(command));
    }
    if (work_ && cuts_short(commands_.back())) work_->cancel();
    settled_ = false;
  }
  wake_.notify_one();
}

std::optional<std::deque<Command>> CommandQueue::take(bool busy) {
  std::unique_lock lock(mutex_);
  in_hand_.clear();  // published since
  if (!busy && commands_.empty() && !ending_) {
    settled_ = true;
    settled_changed_.notify_all();
    wake_.wait(lock, [&] { return !commands_.empty() || ending_; });
  }
  if (ending_) return std::nullopt;
  for (const Command& command : commands_)
    if (const auto* request = std::get_if<EditRequest>(&command))
      for (const EditCommand& edit : request->edits) in_hand_.push_back(edit.edit);
  return std::exchange(commands_, {});
}

std::shared_ptr<Task> CommandQueue::begin_work(bool decode) {
  const std::scoped_lock lock(mutex_);
  decode_ = decode;
  const bool cut = ending_ || std::any_of(commands_.begin(), commands_.end(), [&](const Command& c) { return cuts_short(c); });
  if (cut) return nullptr;
  work_ = std::make_shared<Task>();
  return work_;
}

void CommandQueue::end_work() {
  const std::scoped_lock lock(mutex_);
  work_.reset();
}

void CommandQueue::shut_down() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
    settled_ = true;
    if (work_) work_->cancel();
  }
  wake_.notify_one();
  settled_changed_.notify_all();
}

void CommandQueue::wait_settled() const {
  std::unique_lock lock(mutex_);
  settled_changed_.wait(lock, [&] { return settled_; });
}

std::vector<Edit> CommandQueue::pending() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Edit> edits = in_hand_;
  for (const Command& command : commands_)
    if (const auto* request = std::get_if<EditRequest>(&command))
      for (const EditCommand& edit : request->edits) edits.push_back(edit.edit);
  return edits;
}

}  // namespace switchyard

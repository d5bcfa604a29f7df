// Commands on their way to the engine thread. Any thread pushes, the engine thread takes; also where callers of
// Session::wait() sleep and where a running forward pass is told to stop.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/task.h"
#include "engine/routing/edit.h"
#include "engine/runtime/session.h"

namespace switchyard {

struct EditRequest {
  std::vector<EditCommand> edits;
  std::string author;
  bool script = false;
  uint64_t calls = 1;  // of send(), the replaced ones with it
};
struct MoveCursor {
  enum Kind { kUndo, kRedo, kTo } kind = kUndo;
  size_t cursor = 0;  // kTo
};
struct RecordTo {
  std::shared_ptr<TraceSink> sink;
};
using Command = std::variant<TransportCommand, EditRequest, MoveCursor, RecordTo>;

class CommandQueue {
 public:
  // Start, Pause, Stop, Reset, Rewind, SwitchBranch and the commands of adaptation cut a forward pass short that may last
  // (see begin_work).
  void push(Command command);

  // The engine thread asks for what has come. `busy`: it has tokens to make and does not wait; else it is settled
  // until a command comes. nullopt: the session ends.
  std::optional<std::deque<Command>> take(bool busy);

  // A forward pass begins: its task, which push() cancels. nullptr: a command that would cut it short waits already.
  // A decode step is not cut short by Pause, which may wait for the token.
  std::shared_ptr<Task> begin_work(bool decode);
  void end_work();

  void shut_down();
  void wait_settled() const;  // until the queue is empty and the engine thread waits in take()

  // The edits that no snapshot shows yet, in order: those that wait, and before them those that the engine thread took
  // last and works on until it calls take() again. An edit sent now will meet them.
  std::vector<Edit> pending() const;

 private:
  bool cuts_short(const Command& command) const;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  mutable std::condition_variable settled_changed_;
  std::deque<Command> commands_;
  std::vector<Edit> in_hand_;
  std::shared_ptr<Task> work_;
  bool decode_ = false;
  bool ending_ = false;
  bool settled_ = false;
};

}  // namespace switchyard

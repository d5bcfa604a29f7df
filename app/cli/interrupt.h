// SIGINT, SIGTERM and SIGHUP as requests to stop: the first asks the running command to finish cleanly, the
// second ends the program. SIGPIPE is turned off; a reader that has gone shows as a failed write.
#pragma once

#include <functional>
#include <memory>

namespace switchyard {

class Interrupts {
 public:
  // Call before any thread is started: signals are blocked in all of them and taken by one watcher.
  Interrupts();
  ~Interrupts();

  // What the first signal does while the returned object lives; called on the watcher's thread.
  // Without any, a signal ends the program at once.
  [[nodiscard]] std::shared_ptr<void> on_interrupt(std::function<void()> stop);
  // 0, or the signal that came.
  int signal() const;
  // Signals as a new program expects them; before exec.
  static void restore_defaults();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace switchyard

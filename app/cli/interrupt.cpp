// Signals as requests to stop, see interrupt.h.
#include "app/cli/interrupt.h"

#include <atomic>
#include <csignal>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>

namespace switchyard {
namespace {

sigset_t watched() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  return set;
}

[[noreturn]] void die_of(int number) {
  std::signal(number, SIG_DFL);
  const sigset_t set = watched();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(number);
  ::_exit(128 + number);
}

}  // namespace

struct Interrupts::State {
  std::atomic<int> signal{0};
  std::atomic<bool> ending{false};
  std::mutex mutex;
  std::vector<std::shared_ptr<std::function<void()>>> handlers;
  std::thread watcher;

  void watch() {
    const sigset_t set = watched();
    const timespec period{0, 100'000'000};
    while (!ending) {
      const int number = sigtimedwait(&set, nullptr, &period);
      if (number > 0) take(number);
    }
  }

  void take(int number) {
    const std::scoped_lock lock(mutex);
    if (signal.exchange(number) != 0 || handlers.empty()) die_of(number);
    for (const auto& handler : handlers) (*handler)();
  }
};

Interrupts::Interrupts() : state_(std::make_shared<State>()) {
  const sigset_t set = watched();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  state_->watcher = std::thread([state = state_.get()] { state->watch(); });
}

Interrupts::~Interrupts() {
  state_->ending = true;
  state_->watcher.join();
}

std::shared_ptr<void> Interrupts::on_interrupt(std::function<void()> stop) {
  auto handler = std::make_shared<std::function<void()>>(std::move(stop));
  const std::scoped_lock lock(state_->mutex);
  state_->handlers.push_back(handler);
  return {handler.get(), [state = state_, handler](void*) {
            const std::scoped_lock relock(state->mutex);
            std::erase(state->handlers, handler);
          }};
}

void Interrupts::restore_defaults() {
  std::signal(SIGPIPE, SIG_DFL);
  const sigset_t set = watched();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

int Interrupts::signal() const {
  return state_->signal;
}

}  // namespace switchyard

// A dress rehearsal of reading, in a process that may die.
#include "engine/trace/rehearsal.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#include "engine/base/text.h"
#include "engine/trace/h5.h"

namespace switchyard {
namespace {

// A step, of which the longest reads 256 MiB, takes well under a second.
struct Patience {
  time_t cpu_seconds, wall_seconds;
};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // they slow every step
constexpr Patience kReading{15, 180}, kImporting{180, 1800};
#else
constexpr Patience kReading{5, 60}, kImporting{60, 600};
#endif
constexpr uint64_t kExtraBytes = uint64_t(4) << 30;

// Written by the child, read by the parent when the child is gone. The texts end at a zero byte.
struct Verdict {
  bool refused = false;
  ErrorCode code = ErrorCode::kInternal;
  char what[4096] = {}, where[1024] = {}, hint[1024] = {};
  // Progress. A literal lies at the same address in both processes.
  std::atomic<double> fraction{-1};
  std::atomic<const char*> step{nullptr};
};

template <size_t N>
void copy_text(const std::string& text, char (&out)[N]) {
  const std::string fits = text.size() < N ? text : printable(text, N - 8);
  fits.copy(out, N - 1);
}

struct Rehearsal {
  const std::function<Result<void>()>* work;
  Verdict* verdict;
  Patience patience;
  pid_t child = -1;
  int reason = 0;  // errno of a failed fork
};

Verdict* in_rehearsal = nullptr;  // this process is the child
Patience patience = kReading;     // of the child

void limit_memory() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t bytes = pages * uint64_t(sysconf(_SC_PAGESIZE)) + kExtraBytes;
  const rlimit memory{bytes, bytes};
  if (pages > 0) setrlimit(RLIMIT_AS, &memory);
}

[[noreturn]] void perform(const Rehearsal& rehearsal) {
  // Gone with the parent's thread; keys pressed in a terminal are for the parent alone.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGPROF, SIGTERM, SIGINT, SIGHUP}) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  limit_memory();
  in_rehearsal = rehearsal.verdict;
  patience = rehearsal.patience;
  rehearsal_step();
  Verdict& verdict = *rehearsal.verdict;
  try {
    if (const auto done = (*rehearsal.work)(); !done) {
      verdict.refused = true;
      verdict.code = done.error().code;
      copy_text(done.error().what, verdict.what);
      copy_text(done.error().where, verdict.where);
      copy_text(done.error().hint, verdict.hint);
    }
  } catch (const std::bad_alloc&) {
    verdict.refused = true;
    verdict.code = ErrorCode::kMemory;
    copy_text("needs more than 4 GiB of memory to be read.", verdict.what);
  }
  _exit(0);
}

// Runs inside a call of libhdf5, whose lock this thread therefore holds: in the child no other thread can
// have left it locked.
herr_t fork_here(unsigned, const H5E_error2_t*, void* data) {
  auto& rehearsal = *static_cast<Rehearsal*>(data);
  if (rehearsal.child >= 0) return 0;
  rehearsal.child = fork();
  if (rehearsal.child == 0) perform(rehearsal);
  if (rehearsal.child < 0) rehearsal.reason = errno;
  return 0;
}

// The exit status of the child, which a cancelled task ends early.
int wait_for(pid_t child, const Verdict& verdict, Task* task) {
  int status = 0;
  auto pause = std::chrono::milliseconds(1);
  for (;;) {
    const pid_t ended = waitpid(child, &status, task == nullptr ? 0 : WNOHANG);
    if (ended == child || (ended < 0 && errno != EINTR)) return status;
    if (ended < 0) continue;
    if (task->cancelled()) kill(child, SIGKILL);
    if (const char* step = verdict.step.load(std::memory_order_relaxed)) task->report(verdict.fraction.load(std::memory_order_relaxed), step);
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::milliseconds(16));
  }
}

}  // namespace

void rehearsal_step() {
  if (!in_rehearsal) return;
  const itimerval cpu{{}, {patience.cpu_seconds, 0}};
  setitimer(ITIMER_PROF, &cpu, nullptr);
  alarm(unsigned(patience.wall_seconds));
}

void rehearsal_step(double fraction, const char* step) {
  if (!in_rehearsal) return;
  in_rehearsal->fraction.store(fraction, std::memory_order_relaxed);
  in_rehearsal->step.store(step, std::memory_order_relaxed);
  rehearsal_step();
}

namespace {

Result<void> in_a_child(const std::filesystem::path& path, const std::string& reader, Patience limits,
                        const std::function<Result<void>()>& work, Task* task) {
  h5::quiet();
  const std::string shown = printable(path.string(), 400);
  void* const shared = mmap(nullptr, sizeof(Verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return fail(ErrorCode::kMemory, "there is no memory left to read it.", shown);
  const std::unique_ptr<Verdict, void (*)(Verdict*)> verdict(new (shared) Verdict, [](Verdict* used) { munmap(used, sizeof(Verdict)); });
  // The walk over an error stack is a call with a callback that needs no file.
  const h5::Id stack(H5Ecreate_stack());
  H5Epush2(stack, "rehearsal.cpp", __func__, __LINE__, H5E_ERR_CLS, H5E_NONE_MAJOR, H5E_NONE_MINOR, "rehearsal");
  Rehearsal rehearsal{&work, verdict.get(), limits};
  H5Ewalk2(stack, H5E_WALK_UPWARD, fork_here, &rehearsal);
  if (rehearsal.child < 0) {
    return fail(ErrorCode::kMemory, "could not start a process to read it in: " + std::system_category().message(rehearsal.reason) + ".", shown);
  }
  const int status = wait_for(rehearsal.child, *verdict, task);
  if (task != nullptr && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped.", shown);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    if (verdict->refused) return fail(verdict->code, verdict->what, verdict->where[0] == 0 ? shown : verdict->where, verdict->hint);
    return {};
  }
  const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const std::string how = number == SIGPROF || number == SIGALRM
                              ? reader + " reads and reads in it, without end"
                              : reader + " does not survive reading it (" + (number > 0 ? "signal " + std::to_string(number) : "exit status " + std::to_string(WEXITSTATUS(status))) + ")";
  return fail(ErrorCode::kMalformed, "is damaged: " + how + ".", shown, "It was read in a process of its own; nothing else is affected.");
}

}  // namespace

Result<void> rehearse(const std::filesystem::path& path, const std::function<Result<void>()>& work, Task* task) {
  if (task != nullptr) task->report(-1, "Looking for damage");
  return in_a_child(path, "the HDF5 library", kReading, work, task);
}

Result<void> run_in_child(const std::filesystem::path& path, const std::string& reader, const std::function<Result<void>()>& work,
                          Task* task) {
  return in_a_child(path, reader, kImporting, work, task);
}

}  // namespace switchyard

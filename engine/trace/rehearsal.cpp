// A dress rehearsal of reading, in a process that may die.
#include "engine/trace/rehearsal.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include "engine/base/text.h"
#include "engine/trace/h5.h"

namespace switchyard {
namespace {

// What a small file may take, and what each further piece adds: ten times what a sound one needs.
constexpr uint64_t kCpuSeconds = 60, kWallSeconds = 120, kBytesPerSecond = uint64_t(16) << 20;

struct Rehearsal {
  const std::function<void()>* work;
  uint64_t extra_seconds = 0;  // for a large file
  pid_t child = -1;
  int reason = 0;  // errno of a failed fork
};

[[noreturn]] void perform(const Rehearsal& rehearsal) {
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGTERM, SIGINT}) signal(number, SIG_DFL);
  const rlim_t cpu_seconds = kCpuSeconds + rehearsal.extra_seconds;
  const rlimit no_core{0, 0}, cpu{cpu_seconds, cpu_seconds};
  setrlimit(RLIMIT_CORE, &no_core);
  setrlimit(RLIMIT_CPU, &cpu);
  alarm(unsigned(kWallSeconds + 2 * rehearsal.extra_seconds));
  (*rehearsal.work)();
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

}  // namespace

Result<void> rehearse(const std::filesystem::path& path, const std::function<void()>& work) {
  h5::quiet();
  // The walk over an error stack is a call with a callback that needs no file.
  const h5::Id stack(H5Ecreate_stack());
  H5Epush2(stack, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_NONE_MAJOR, H5E_NONE_MINOR, "rehearsal");
  std::error_code unknown;
  const auto size = std::filesystem::file_size(path, unknown);
  Rehearsal rehearsal{&work, unknown ? 0 : size / kBytesPerSecond};
  H5Ewalk2(stack, H5E_WALK_UPWARD, fork_here, &rehearsal);
  if (rehearsal.child < 0) {
    return fail(ErrorCode::kMemory, "could not start a process to read it in: " + std::system_category().message(rehearsal.reason) + ".",
                printable(path.string(), 400));
  }
  int status = 0;
  while (waitpid(rehearsal.child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) return {};
  return fail(ErrorCode::kMalformed,
              "is damaged: the HDF5 library does not survive reading it (signal " + std::to_string(WTERMSIG(status)) + ").",
              printable(path.string(), 400), "It was read in a process of its own; nothing else is affected.");
}

}  // namespace switchyard

// A child process with limits, see guarded.h.
#include "engine/tokenizer/guarded.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <new>
#include <system_error>

#include "engine/base/folder.h"

namespace switchyard {
namespace {

constexpr char kText = 'T', kError = 'E', kMemory = 'M';  // the first byte of what the child writes

void limit(int resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(resource, &both);
}

// Bytes of address space in use, 0 where /proc does not say.
size_t address_space() {
  size_t pages = 0;
  if (FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%zu", &pages) != 1) pages = 0;
    std::fclose(statm);
  }
  return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

void write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

[[noreturn]] void perform(int out, const GuardLimits& limits, const std::function<Result<std::string>()>& work) {
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGINT, SIGXCPU, SIGPIPE})
    signal(number, SIG_DFL);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, limits.cpu_seconds);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their shadow memory has no bound
  if (const size_t used = address_space()) limit(RLIMIT_AS, used + limits.memory);
#endif
  try {
    const auto done = work();
    write_all(out, std::string(1, done ? kText : kError) + (done ? *done : done.error().what));
  } catch (const std::bad_alloc&) {
    write_all(out, std::string_view(&kMemory, 1));
  } catch (const std::exception& error) {
    // The interpreter wraps what it catches.
    const std::string what = error.what();
    const bool memory = what.find("std::bad_alloc") != std::string::npos || what.find("length_error") != std::string::npos;
    write_all(out, memory ? std::string(1, kMemory) : kError + what);
  }
  _exit(0);
}

struct Child {
  pid_t id;
  Descriptor pipe;
};

// What the child writes until it closes the pipe; false: too much or too late, and the child is killed.
bool read_answer(const Child& child, const GuardLimits& limits, std::string& answer) {
  const auto deadline = std::chrono::steady_clock::now() + limits.wall;
  std::array<char, 65536> block;
  while (answer.size() <= limits.output) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd ready{child.pipe.get(), POLLIN, 0};
    const int got = left.count() > 0 ? poll(&ready, 1, static_cast<int>(left.count())) : 0;
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    const ssize_t size = ::read(child.pipe.get(), block.data(), block.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return true;
    answer.append(block.data(), static_cast<size_t>(size));
  }
  kill(child.id, SIGKILL);
  return false;
}

int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

Result<std::string> run_guarded(const std::string& what, const std::string& where, const GuardLimits& limits,
                                const std::function<Result<std::string>()>& work) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    return fail(ErrorCode::kMemory, "could not open a pipe: " + std::system_category().message(errno) + ".", where);
  Descriptor reading(ends[0]), writing(ends[1]);
  const pid_t id = fork();
  if (id == 0) perform(writing.get(), limits, work);
  if (id < 0)
    return fail(ErrorCode::kMemory, "could not start a process: " + std::system_category().message(errno) + ".", where);
  writing = Descriptor();
  const Child child{id, std::move(reading)};
  std::string answer;
  const bool ended = read_answer(child, limits, answer);
  const int status = wait_for(id);

  const auto refuse = [&](const std::string& why) {
    return fail(ErrorCode::kMalformed, what + " " + why + ".", where, "It ran in a process of its own; nothing else is affected.");
  };
  if (answer.size() > limits.output) return refuse("writes more than " + std::to_string(limits.output >> 20) + " MiB");
  if (!ended || (WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL)))
    return refuse("does not end within " + std::to_string(limits.cpu_seconds) + " s");
  if (WIFSIGNALED(status))
    return refuse("crashed its interpreter (signal " + std::to_string(WTERMSIG(status)) + "); it may nest too deep");
  if (answer.empty() || answer[0] == kMemory)
    return refuse("needs more than " + std::to_string(limits.memory >> 20) + " MiB of memory");
  const std::string text = answer.substr(1);
  if (answer[0] == kError) return fail(ErrorCode::kMalformed, text, where);
  return text;
}

}  // namespace switchyard

#include "engine/plugin_host/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include "engine/base/text.h"

extern char** environ;

namespace switchyard {
namespace {

namespace fs = std::filesystem;

Result<fs::path> find_program() {
  if (const char* chosen = std::getenv("SWITCHYARD_PLUGIN_HOST"); chosen && *chosen) return fs::path(chosen);
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& path :
       {folder / "switchyard-plugin-host", folder.parent_path() / "lib" / "switchyard" / "switchyard-plugin-host"})
    if (fs::exists(path, error)) return path;
  return fail(ErrorCode::kNotFound, "switchyard-plugin-host is neither beside the program nor in ../lib/switchyard.",
              {}, "Install Switchyard whole, or set SWITCHYARD_PLUGIN_HOST.");
}

// What the child's end was, in words.
std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    if (number == SIGXCPU) return "took more CPU time than a step may";
    return fmt::format("was ended by signal {} ({})", number, strsignal(number));
  }
  return fmt::format("ended itself with status {}", WEXITSTATUS(status));
}

}  // namespace

int child_patience() {
  const char* set = std::getenv("SWITCHYARD_PLUGIN_PATIENCE");
  const int seconds = set ? int(std::strtol(set, nullptr, 10)) : 0;
  return seconds > 0 ? seconds : 60;
}

PluginChild::PluginChild(ChildRequest request, pid_t pid, Descriptor descriptor, Task* task)
    : request_(std::move(request)), pid_(pid), wire_(std::move(descriptor)), task_(task) {}

PluginChild::~PluginChild() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<std::unique_ptr<PluginChild>> PluginChild::start(const ChildRequest& request, Task* task) {
  SY_TRY(const fs::path program, find_program());
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(ErrorCode::kMemory,
                std::string("no process could be started for a plugin: ") + std::strerror(errno) + ".");
  Descriptor here(ends[0]), there(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, there.get(), 3);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  if (!request.loud) posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, 2, 1);  // what it prints is never the program's data
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, usual;
  sigemptyset(&none);
  sigfillset(&usual);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string path = program.string();
  char* arguments[] = {path.data(), nullptr};
  pid_t pid = -1;
  const int problem = ::posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (problem != 0)
    return fail(ErrorCode::kPlugin, std::string("could not be started: ") + std::strerror(problem) + ".",
                printable(path, 400));
  there = Descriptor();
  std::unique_ptr<PluginChild> child(new PluginChild(request, pid, std::move(here), task));
  Message begin;
  begin.head = {{"op", "begin"},
                {"library", request.library.string()},
                {"sha256", request.sha256},
                {"settings", request.settings},
                {"kind", request.kind},
                {"name", request.name}};
  SY_CHECK(child->ask(begin));
  return child;
}

// A step begins: its CPU time counts from here.
void PluginChild::grant_time() {
  clockid_t clock;
  timespec used{};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return;
  const rlimit limit{rlim_t(used.tv_sec) + rlim_t(child_patience()) + 1, RLIM_INFINITY};
  ::prlimit(pid_, RLIMIT_CPU, &limit, nullptr);
}

tl::unexpected<Error> PluginChild::dead(const Error& why) {
  std::string what = why.what;
  const bool still = what == "stands still";
  if (still) ::kill(pid_, SIGKILL);
  int status = 0;
  for (int turn = 0; pid_ > 0; ++turn) {
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended == pid_) {
      if (!still) what = how_it_ended(status);
      pid_ = -1;
    } else if (ended < 0 && errno != EINTR) {
      pid_ = -1;
    } else if (turn == 100) {
      ::kill(pid_, SIGKILL);
    } else {
      ::usleep(2000);
    }
  }
  if (still) what = fmt::format("stood still for {} s", 2 * child_patience());
  return fail(ErrorCode::kPlugin, fmt::format("the plugin {} {}.", request_.plugin, what),
              printable(request_.library.string(), 400), "It ran in a process of its own; nothing else is affected.");
}

Result<void> PluginChild::tell(const Message& message) {
  if (pid_ <= 0) return fail(ErrorCode::kPlugin, fmt::format("the plugin {} is gone.", request_.plugin));
  if (auto sent = wire_.send(message, 2000 * child_patience()); !sent) return dead(sent.error());
  return {};
}

Result<Message> PluginChild::hear() {
  grant_time();
  const int most = 2000 * child_patience();
  for (int waited = 0;;) {
    if (task_ && task_->cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
    auto message = wire_.receive(100);
    if (!message && message.error().what == "stands still") {
      waited += 100;
      if (waited < most) continue;
    }
    if (!message) return dead(message.error());
    waited = 0;
    if (message->has("log")) {
      if (request_.log) request_.log(int(message->number("level")), printable(message->text("log"), 1000));
      continue;
    }
    if (message->has("progress")) {
      if (task_ && message->head["progress"].is_number())
        task_->report(std::clamp(message->head["progress"].get<double>(), 0.0, 1.0), "Plugin " + request_.plugin);
      grant_time();
      continue;
    }
    if (message->has("fail")) {
      const std::string why = printable(message->text("fail"), 1000);
      return fail(ErrorCode::kPlugin,
                  fmt::format("the plugin {} failed: {}{}", request_.plugin, why, why.ends_with('.') ? "" : "."),
                  printable(request_.library.string(), 400));
    }
    return message;
  }
}

Result<Message> PluginChild::ask(const Message& message) {
  SY_CHECK(tell(message));
  return hear();
}

}  // namespace switchyard

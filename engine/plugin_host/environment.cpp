#include "engine/plugin_host/environment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <cstring>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace switchyard {
namespace {

bool same_action(const struct sigaction& a, const struct sigaction& b) {
  return (a.sa_flags & SA_SIGINFO) == (b.sa_flags & SA_SIGINFO) && a.sa_handler == b.sa_handler;
}

// Rounding, traps, flushing of small numbers; without the flags that every operation sets.
unsigned float_control() {
#if defined(__SSE__)
  return _mm_getcsr() & ~0x3Fu;
#else
  return unsigned(std::fegetround()) << 16 | unsigned(::fegetexcept());
#endif
}

}  // namespace

ProcessEnvironment::Place ProcessEnvironment::place_of(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return {};
  return {status.st_dev, status.st_ino, 1};
}

ProcessEnvironment ProcessEnvironment::now() {
  ProcessEnvironment out;
  out.locale_ = std::setlocale(LC_ALL, nullptr);
  out.folder_ = Descriptor(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  out.folder_place_ = place_of(out.folder_.get());
  for (int i = 0; i < 3; ++i) {
    out.places_[size_t(i)] = place_of(i);
    out.copies_[size_t(i)] = Descriptor(::fcntl(i, F_DUPFD_CLOEXEC, 64));
  }
  for (int number = 1; number < kSignals; ++number) ::sigaction(number, nullptr, &out.actions_[size_t(number)]);
  std::fegetenv(&out.floats_);
  out.float_control_ = float_control();
  return out;
}

std::vector<std::string> ProcessEnvironment::restore() const {
  std::vector<std::string> out;
  if (const std::string locale = std::setlocale(LC_ALL, nullptr); locale != locale_) {
    out.push_back("the locale (" + locale_ + " to " + locale + ")");
    std::setlocale(LC_ALL, locale_.c_str());
  }
  // First: what is opened below would take the number of one that was closed.
  for (int i = 0; i < 3; ++i) {
    if (place_of(i) == places_[size_t(i)]) continue;
    out.push_back("descriptor " + std::to_string(i));
    if (copies_[size_t(i)])
      ::dup2(copies_[size_t(i)].get(), i);
    else
      ::close(i);
  }
  const Descriptor here(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (folder_ && !(place_of(here.get()) == folder_place_)) {
    out.emplace_back("the working folder");
    if (::fchdir(folder_.get()) != 0) out.back() += ", which cannot be put back";
  }
  for (int number = 1; number < kSignals; ++number) {
    struct sigaction action {};
    if (number == SIGKILL || number == SIGSTOP || ::sigaction(number, nullptr, &action) != 0 ||
        same_action(action, actions_[size_t(number)]))
      continue;
    out.push_back(std::string("the handler of signal ") + std::to_string(number));
    ::sigaction(number, &actions_[size_t(number)], nullptr);
  }
  if (float_control() != float_control_) out.emplace_back("how floating-point numbers are rounded, flushed or trapped");
  std::fesetenv(&floats_);
  return out;
}

}  // namespace switchyard

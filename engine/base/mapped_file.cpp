// Guarded mappings. The SIGBUS handler is installed with the first mapping, stays, and hands what is not
// ours to the handler that was there before.
#include "engine/base/mapped_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <system_error>

#include <fmt/format.h>

namespace switchyard {
namespace {

// Read by the handler on any thread: plain atomics, never moved. begin is written last and cleared first.
struct Guard {
  std::atomic<uintptr_t> begin{0};  // 0: free
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};
constexpr int kGuards = 8192;
std::array<Guard, kGuards> guards;
std::mutex guards_mutex;  // registration only
struct sigaction previous_action;
uintptr_t page_bytes;

// Puts zero pages from the one at `address` to the end of the mapping. Async-signal-safe: one system call.
bool cover_with_zeros(Guard& guard, uintptr_t address) {
  const uintptr_t page = address & ~(page_bytes - 1);
  const size_t bytes = guard.end.load() - page;
  void* covered = mmap(reinterpret_cast<void*>(page), bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return covered != MAP_FAILED;
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Guard& guard : guards) {
    const uintptr_t begin = guard.begin.load();
    if (begin == 0 || address < begin || address >= guard.end.load()) continue;
    guard.damaged.store(true);
    if (!cover_with_zeros(guard, address)) break;
    errno = saved_errno;
    return;
  }
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    ::signal(signal, SIG_DFL);  // the access is tried again and ends the process
  }
}

void install_handler() {
  page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGBUS, &action, &previous_action);
}

// The index of a free entry, now taken, or -1.
int register_guard(std::span<const std::byte> bytes) {
  const std::scoped_lock lock(guards_mutex);
  static const bool installed = (install_handler(), true);
  static_cast<void>(installed);
  for (int i = 0; i < kGuards; ++i) {
    if (guards[i].begin.load() != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
    guards[i].damaged.store(false);
    guards[i].end.store(begin + (bytes.size() + page_bytes - 1) / page_bytes * page_bytes);
    guards[i].begin.store(begin);
    return i;
  }
  return -1;
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::map(OpenFile file) {
  if (file.size() == 0) return std::shared_ptr<const MappedFile>(new MappedFile(std::move(file), {}, -1));
  void* data = mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (data == MAP_FAILED)
    return fail(errno == ENOMEM ? ErrorCode::kMemory : ErrorCode::kNotFound,
                fmt::format("could not be mapped: {}.", std::system_category().message(errno)), file.name());
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(data), file.size());
  const int guard = register_guard(bytes);
  if (guard < 0) {
    munmap(data, file.size());
    return fail(ErrorCode::kMemory, fmt::format("more than {} files are mapped.", kGuards), file.name(),
                "Close a model.");
  }
  file.close();  // the mapping stays; a model of many shards would use up the descriptors
  return std::shared_ptr<const MappedFile>(new MappedFile(std::move(file), bytes, guard));
}

MappedFile::~MappedFile() {
  if (guard_ < 0) return;
  guards[guard_].begin.store(0);
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(size_t begin, size_t end) const {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first = (begin + page - 1) / page * page, last = std::min(end, bytes_.size()) / page * page;
  if (first < last) madvise(const_cast<std::byte*>(bytes_.data()) + first, last - first, MADV_DONTNEED);
}

Result<void> MappedFile::check_unchanged() const {
  SY_CHECK(file_.check_unchanged());
  if (guard_ >= 0 && guards[guard_].damaged.load())
    return fail(ErrorCode::kMalformed, "could not be read to its end while it was mapped (cut, or a disk error).",
                file_.name(), "Values read from it since are wrong: check the file and open the model again.");
  return {};
}

}  // namespace switchyard

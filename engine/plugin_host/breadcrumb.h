// Which plugin is being called, in a file that outlives the process: a plugin that kills the program, hangs it or ends
// it is named at the next start, whatever it did. Two stores a call, no system call. The calls of one plugin do not
// overlap.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

enum class PluginCall : uint32_t {
  kNone,
  kLoad,
  kInit,
  kShutdown,
  kFind,
  kRoute,
  kEdit,
  kDraw,
  kTable,
  kMetric,
  kReader,
  kWriter,
  kReport
};
std::string_view name(PluginCall call);

// What is left of a process that is gone.
struct Remains {
  std::string plugin;                   // id
  PluginCall call = PluginCall::kNone;  // kNone: it was loaded when the program crashed outside of any call
};

class Breadcrumbs {
 public:
  // The file of one plugin's calls.
  struct Trail {
    char plugin[72];
    std::atomic<uint32_t> call;   // PluginCall
    std::atomic<uint64_t> calls;  // so far
  };
  static constexpr size_t kMost = 64;

  // A file of this process in `folder`; where that cannot be, in memory alone.
  explicit Breadcrumbs(const std::filesystem::path& folder);
  ~Breadcrumbs();  // a normal end: the file goes
  Breadcrumbs(const Breadcrumbs&) = delete;

  // nullptr: 64 plugins are there already.
  Trail* begin(const std::string& plugin);
  // The plugin that is inside a call now; "" where none is. With the name of the call.
  std::string inside() const;
  // In a signal handler: notes that the program is going down by this signal.
  void note_signal(int number);
  std::vector<const Trail*> trails() const;

  // Of processes that are gone; their files are removed. Those of running ones stay.
  static std::vector<Remains> collect(const std::filesystem::path& folder);

 private:
  struct Page;
  std::filesystem::path file_;
  Page* page_ = nullptr;
  std::unique_ptr<Page> own_;
};

// Around a call.
class CallMark {
 public:
  CallMark(Breadcrumbs::Trail* trail, PluginCall call) : trail_(trail) {
    if (!trail_) return;
    trail_->calls.store(trail_->calls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    trail_->call.store(uint32_t(call), std::memory_order_release);
  }
  ~CallMark() {
    if (trail_) trail_->call.store(0, std::memory_order_release);
  }
  CallMark(const CallMark&) = delete;

 private:
  Breadcrumbs::Trail* trail_;
};

}  // namespace switchyard

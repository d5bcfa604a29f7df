// One plugin as the program knows it: manifest, trust, state, and its code once it is needed. Any thread.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/task.h"
#include "engine/plugin_host/child.h"
#include "engine/plugin_host/code.h"
#include "engine/plugin_host/manifest.h"

namespace switchyard {

enum class PluginState : uint8_t {
  kUntrusted,  // its code is not opened before somebody says so
  kReady,      // may be opened, nobody needed it yet
  kLoaded,     // in this process
  kRefused,    // manifest, contract, owner or library: cannot be used
  kOff,        // switched off by people, by a crash, or for what it did
};
std::string_view name(PluginState state);  // "not trusted"

struct PluginStatus {
  PluginState state = PluginState::kUntrusted;
  std::string why;                         // of kRefused and kOff
  double load_seconds = -1;                // into this process; negative: not yet
  std::map<std::string, uint64_t> faults;  // what it did wrong since the start of the program, and how often
};

class Plugin {
 public:
  // A folder whose manifest could not be read has an id made of its name, and is refused.
  Plugin(std::filesystem::path folder, Result<Manifest> manifest);
  Plugin(const Plugin&) = delete;

  const std::string& id() const { return manifest_.id; }
  const Manifest& manifest() const { return manifest_; }
  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path library() const { return folder_ / manifest_.library_file(); }
  const std::string& sha256() const { return sha256_; }  // of the library when the program started; "": none
  PluginStatus status() const;
  bool off() const { return off_.load(std::memory_order_relaxed); }  // no more calls
  // Why nothing of it can be used now, with the next step; "": it can.
  std::string why_not() const;

  void set_trusted(bool trusted);
  void turn_off(const std::string& why);
  void turn_on();
  void close();  // at the end of the program: no more calls, then shutdown()
  // Counts a fault and tells it once. Allocates the first time that `what` is seen.
  void fault(const std::string& what);
  std::function<void(const std::string&)> tell = {};  // set before use: a line for people

  // As text, by key: what people set, else the default. Unknown keys: false.
  bool setting(const std::string& key, std::string& value) const;
  void set_settings(nlohmann::json values);
  nlohmann::json settings() const;  // values that differ from the defaults

  // In this process, at the first call after a trial in a process of its own. kPlugin: why not.
  Result<std::shared_ptr<PluginCode>> code(Breadcrumbs& crumbs);
  // A new process with it. kPlugin.
  Result<std::unique_ptr<PluginChild>> child(PluginKind kind, const std::string& name, Task* task = nullptr) const;

 private:
  PluginHooks hooks();
  Result<void> usable() const;
  Result<std::shared_ptr<PluginCode>> open_here(Breadcrumbs& crumbs);

  const std::filesystem::path folder_;
  Manifest manifest_;
  std::string sha256_, refused_;
  std::atomic<bool> off_{false};
  mutable std::mutex mutex_, opening_;
  bool trusted_ = false;
  std::string off_why_;
  PluginStatus status_;
  nlohmann::json settings_ = nlohmann::json::object();
  std::shared_ptr<PluginCode> code_;
};

}  // namespace switchyard

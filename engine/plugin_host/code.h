// A plugin's library, opened and begun: the border between the program and code that may do anything. Used in the
// program itself and in switchyard-plugin-host alike. Opened once, never closed: what it registered may outlive every
// use.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <cxxabi.h>

#include "engine/base/result.h"
#include "engine/plugin_host/breadcrumb.h"
#include "switchyard/plugin.h"

namespace switchyard {

// What the program answers when a plugin asks. Any thread.
struct PluginHooks {
  std::function<void(int level, const std::string& text)> log;
  std::function<bool(const std::string& key, std::string& value)> setting;  // false: there is none
  std::function<bool()> cancelled = {};
  std::function<void(double)> progress = {};
};

// The `ctx` of one call.
struct CallContext {
  const PluginHooks* hooks = nullptr;
  char message[400] = {};  // of the plugin, or of what it threw
  void say(const char* text);
};

// A struct of the other side as this side knows it: what it does not have is zero, what is unknown here is left out.
template <class T>
T known_part(const T* theirs) {
  T ours{};
  std::memcpy(&ours, theirs, std::min<size_t>(theirs->struct_size, sizeof(T)));
  return ours;
}

// Elements of the arrays of a metric that passed metric().
inline const sy_table& table_of(const sy_metric& metric, uint32_t i) {
  return *reinterpret_cast<const sy_table*>(reinterpret_cast<const char*>(metric.tables) +
                                            size_t(i) * metric.tables->struct_size);
}
inline const sy_column& column_of(const sy_table& table, uint32_t i) {
  return *reinterpret_cast<const sy_column*>(reinterpret_cast<const char*>(table.columns) +
                                             size_t(i) * table.columns->struct_size);
}

class PluginCode {
 public:
  // kPlugin: why it is refused, with the path. trail: may be null. The process' environment is compared after init().
  static Result<std::shared_ptr<PluginCode>> open(const std::filesystem::path& library, PluginHooks hooks,
                                                  Breadcrumbs::Trail* trail);
  ~PluginCode();
  // Ends the plugin, once; nothing may be called afterwards. The library stays.
  void close();

  // Calls under the lock of calls(), which the caller holds. False: it failed, ctx.message says why.
  template <class F>
  bool call(PluginCall what, CallContext& ctx, F&& work) {
    ctx.hooks = &hooks_;
    const CallMark mark(trail_, what);
    try {
      return work() == 0;
    } catch (const abi::__forced_unwind&) {
      throw;  // the thread is being ended
    } catch (const std::exception& error) {
      ctx.say(error.what());
    } catch (...) {
      ctx.say("threw an exception that is unknown here");
    }
    return false;
  }
  std::mutex& calls() { return calls_; }
  void* self() const { return self_; }

  // By id; nullopt-like: struct_size 0 where the plugin does not know it or what it gives cannot be used.
  Result<sy_scheme> scheme(const std::string& id);
  Result<sy_edit> edit(const std::string& id);
  Result<sy_metric> metric(const std::string& id);
  Result<sy_view> view(const std::string& id);
  Result<sy_reader> reader(const std::string& id);
  Result<sy_writer> writer(const std::string& id);
  Result<sy_report_section> report_section(const std::string& id);

  // What init() changed of the process and was put back, in words.
  const std::vector<std::string>& changed() const { return changed_; }
  const std::filesystem::path& library() const { return library_; }

 private:
  PluginCode(std::filesystem::path library, PluginHooks hooks, Breadcrumbs::Trail* trail);
  Result<void> begin();
  template <class T>
  Result<T> find(const T* (*from)(void*, const char*), const std::string& id, size_t least, const char* kind);

  std::filesystem::path library_;
  PluginHooks hooks_;
  Breadcrumbs::Trail* trail_;
  std::mutex calls_;
  struct Answers {  // what the plugin has as sy_host
    sy_host table;
    PluginCode* code;
  };
  std::unique_ptr<Answers> answers_;
  sy_plugin table_{};
  void* self_ = nullptr;
  bool begun_ = false;
  std::vector<std::string> changed_;
};

// Numbers in (0, 1) as sy_host::random gives them.
void plugin_random(uint64_t seed, uint32_t layer, uint64_t token, uint32_t n, float* out);

}  // namespace switchyard

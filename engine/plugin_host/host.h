// All plugins of this program: found, listed, trusted, and their contributions entered into the registries of schemes,
// analyses, dump formats, export formats and report sections, so that they appear wherever those are listed. Started once, before other
// threads; afterwards any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/plugin_host/breadcrumb.h"
#include "engine/plugin_host/plugin.h"
#include "engine/plugin_host/store.h"

namespace switchyard {

struct PluginOptions {
  std::vector<std::string> path;   // --plugin-path, further folders
  std::vector<std::string> trust;  // --trust-plugin: SHA-256 for this run, "sha256:" before it or not
  bool safe_mode = false;          // --safe-mode: listed, none is opened
  // Before the first code of a plugin is opened in this process.
  std::function<void()> before_code = {};
  double patience = 10;
  std::function<void(const std::string&)> hung =
      {};  // told once of a call that has not come back for `patience` seconds
};

class PluginHost {
 public:
  static PluginHost& instance();

  // Finds plugins, names those that were inside a call when a process ended (they are off from then on, until people
  // turn them on), registers contributions. The second call does nothing.
  void start(const PluginOptions& options);

  const std::vector<std::shared_ptr<Plugin>>& plugins() const { return plugins_; }
  std::shared_ptr<Plugin> find(std::string_view id) const;
  // Of all plugins that are not refused, with the plugin, in their order.
  std::vector<std::pair<std::shared_ptr<Plugin>, const Contribution*>> contributions(PluginKind kind) const;
  Breadcrumbs& crumbs() { return *crumbs_; }
  bool safe_mode() const { return safe_mode_; }
  const std::vector<std::filesystem::path>& search_path() const { return path_; }

  // Stored for every later start. kNotFound: no such plugin; kUsage: it is refused, or has no code to trust.
  Result<void> trust(std::string_view id, bool trusted);
  Result<void> set_off(std::string_view id, bool off);
  Result<void> set_setting(std::string_view id, std::string_view key,
                           std::string_view value);  // checked against the manifest

  // Lines for people since the last call: what plugins logged and did wrong, what was found at the start.
  std::vector<std::string> take_lines();
  void tell(const std::string& line);
  // Noted in the breadcrumb, and made once: a crash outside of any call names what was loaded.
  void watch_for_crashes();

  ~PluginHost();

 private:
  PluginHost() = default;
  void find_all();
  void name_the_culprits();
  void start_watch();
  Result<void> change(const std::function<void(PluginChoices&)>& edit);

  std::vector<std::shared_ptr<Plugin>> plugins_;
  std::vector<std::filesystem::path> path_;
  std::unique_ptr<Breadcrumbs> crumbs_;
  PluginOptions options_;
  bool started_ = false, safe_mode_ = false;
  std::mutex lines_mutex_;
  std::vector<std::string> lines_;
  struct Watch;
  std::unique_ptr<Watch> watch_;
};

// What is registered where; each once, called by start().
void register_plugin_schemes(PluginHost& host);
void register_plugin_metrics(PluginHost& host);
void register_plugin_readers(PluginHost& host);
void register_plugin_writers(PluginHost& host);
void register_plugin_sections(PluginHost& host);

}  // namespace switchyard

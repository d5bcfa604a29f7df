#include "engine/plugin_host/host.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <thread>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

constexpr std::array kCrashes = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
std::atomic<Breadcrumbs*> crashing{nullptr};
std::array<struct sigaction, 32> before_ours;

// Async-safe: one store, then whoever handled the signal before.
void note_crash(int number) {
  if (Breadcrumbs* crumbs = crashing.load()) crumbs->note_signal(number);
  ::sigaction(number, &before_ours[size_t(number)], nullptr);
  ::raise(number);
}

// exit() from inside a plugin must not look like a normal end.
void note_exit() {
  Breadcrumbs* crumbs = crashing.load();
  if (!crumbs) return;
  const std::string inside = crumbs->inside();
  if (inside.empty()) return;
  const std::string text = "error: the plugin " + inside + " ended the program.\n";
  [[maybe_unused]] const ssize_t told = ::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(int(ErrorCode::kPlugin));
}

std::string bare_hash(const std::string& text) {
  return text.starts_with("sha256:") ? text.substr(7) : text;
}

}  // namespace

// Looks four times a second whether a call stands still.
struct PluginHost::Watch {
  std::mutex mutex;
  std::condition_variable stop;
  bool stopping = false;
  std::thread thread;
  ~Watch() {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
    }
    stop.notify_all();
    if (thread.joinable()) thread.join();
  }
};

PluginHost& PluginHost::instance() {
  static PluginHost host;
  return host;
}

PluginHost::~PluginHost() {
  watch_.reset();
  // Recipes and lists may hold on to plugins for longer.
  for (const auto& plugin : plugins_) plugin->close();
  crashing.store(nullptr);
}

void PluginHost::tell(const std::string& line) {
  const std::scoped_lock lock(lines_mutex_);
  if (lines_.size() < 1000) lines_.push_back(line);
}

std::vector<std::string> PluginHost::take_lines() {
  const std::scoped_lock lock(lines_mutex_);
  return std::exchange(lines_, {});
}

void PluginHost::start(const PluginOptions& options) {
  if (std::exchange(started_, true)) return;
  options_ = options;
  safe_mode_ = options.safe_mode;
  path_ = plugin_search_path(options.path);
  const auto state = plugin_state_folder();
  find_all();
  if (plugins_.empty()) {  // the usual case costs a look into the folders
    crumbs_ = std::make_unique<Breadcrumbs>(std::filesystem::path());
    return;
  }
  name_the_culprits();
  crumbs_ = std::make_unique<Breadcrumbs>(state ? *state : std::filesystem::path());
  register_plugin_schemes(*this);
  register_plugin_metrics(*this);
  register_plugin_readers(*this);
  register_plugin_writers(*this);
  register_plugin_sections(*this);
}

void PluginHost::find_all() {
  PluginChoices choices;
  if (auto read = read_plugin_choices())
    choices = std::move(*read);
  else
    tell("No plugin is trusted: " + read.error().message());
  for (const std::string& one : options_.trust) choices.trusted.insert(bare_hash(one));
  for (const auto& folder : find_plugin_folders(path_)) {
    auto plugin = std::make_shared<Plugin>(folder, read_manifest(folder));
    if (const auto twice = find(plugin->id())) {
      tell(fmt::format("The plugin {} in {} is left out: one of this id was found in {}.", plugin->id(),
                       printable(folder.string(), 400), printable(twice->folder().string(), 400)));
      continue;
    }
    plugin->tell = [this](const std::string& line) { tell(line); };
    plugin->set_trusted(choices.trusted.contains(plugin->sha256()));
    if (const auto off = choices.off.find(plugin->id()); off != choices.off.end()) plugin->turn_off(off->second);
    if (safe_mode_) plugin->turn_off("the program runs in safe mode.");
    if (const auto settings = choices.settings.find(plugin->id()); settings != choices.settings.end())
      plugin->set_settings(settings->second);
    plugins_.push_back(std::move(plugin));
  }
}

void PluginHost::name_the_culprits() {
  const auto state = plugin_state_folder();
  if (!state) return;
  std::map<std::string, std::string> found;
  for (const Remains& one : Breadcrumbs::collect(*state))
    found.emplace(one.plugin, one.call == PluginCall::kNone
                                  ? "the program crashed while it was loaded."
                                  : fmt::format("the program did not survive its {}().", name(one.call)));
  if (found.empty()) return;
  for (const auto& [id, why] : found) {
    tell(
        fmt::format("The plugin {} is off: {} Turn it on again with switchyard plugin on {}.",
                    id, why, id));
    if (const auto plugin = find(id)) plugin->turn_off(why);
  }
  if (const auto written = change([&](PluginChoices& choices) { choices.off.insert(found.begin(), found.end()); });
      !written)
    tell("That could not be noted: " + written.error().message());
}

std::shared_ptr<Plugin> PluginHost::find(std::string_view id) const {
  for (const auto& plugin : plugins_)
    if (plugin->id() == id) return plugin;
  return nullptr;
}

std::vector<std::pair<std::shared_ptr<Plugin>, const Contribution*>> PluginHost::contributions(PluginKind kind) const {
  std::vector<std::pair<std::shared_ptr<Plugin>, const Contribution*>> out;
  for (const auto& plugin : plugins_) {
    if (plugin->status().state == PluginState::kRefused) continue;
    for (const Contribution& one : plugin->manifest().contributions)
      if (one.kind == kind) out.emplace_back(plugin, &one);
  }
  return out;
}

Result<void> PluginHost::change(const std::function<void(PluginChoices&)>& edit) {
  SY_TRY(PluginChoices choices, read_plugin_choices());
  edit(choices);
  return write_plugin_choices(choices);
}

namespace {

Result<std::shared_ptr<Plugin>> need(const PluginHost& host, std::string_view id) {
  if (auto plugin = host.find(id)) return plugin;
  return fail(ErrorCode::kNotFound, "there is no plugin " + quote(id) + ".", {},
              "switchyard plugin list shows what is found and where it is looked for.");
}

}  // namespace

Result<void> PluginHost::trust(std::string_view id, bool trusted) {
  SY_TRY(const auto plugin, need(*this, id));
  const PluginStatus now = plugin->status();
  if (!plugin->manifest().has_code())
    return fail(ErrorCode::kUsage, fmt::format("the plugin {} has no code; there is nothing to trust.", id));
  if (trusted && now.state == PluginState::kRefused) return fail(ErrorCode::kPlugin, now.why, plugin->id());
  SY_CHECK(change([&](PluginChoices& choices) {
    if (trusted)
      choices.trusted.insert(plugin->sha256());
    else
      choices.trusted.erase(plugin->sha256());
  }));
  plugin->set_trusted(trusted);
  return {};
}

Result<void> PluginHost::set_off(std::string_view id, bool off) {
  SY_TRY(const auto plugin, need(*this, id));
  if (!off && safe_mode_)
    return fail(ErrorCode::kUsage, "the program runs in safe mode.", plugin->id(), "Start it without --safe-mode.");
  SY_CHECK(change([&](PluginChoices& choices) {
    if (off)
      choices.off.insert_or_assign(plugin->id(), "switched off by hand.");
    else
      choices.off.erase(plugin->id());
  }));
  if (off)
    plugin->turn_off("switched off by hand.");
  else
    plugin->turn_on();
  return {};
}

Result<void> PluginHost::set_setting(std::string_view id, std::string_view key, std::string_view value) {
  SY_TRY(const auto plugin, need(*this, id));
  const auto& fields = plugin->manifest().settings;
  const auto field =
      std::find_if(fields.begin(), fields.end(), [&](const PluginField& one) { return one.name == key; });
  if (field == fields.end()) {
    std::string names;
    for (const PluginField& one : fields) names += (names.empty() ? "" : ", ") + one.name;
    return fail(ErrorCode::kUsage, fmt::format("the plugin {} has no setting {}.", id, quote(key)), {},
                names.empty() ? "It has none." : "It has " + names + ".");
  }
  SY_TRY(const nlohmann::json parsed, field->value_of(value));
  nlohmann::json values = plugin->settings();
  values[field->name] = parsed;
  plugin->set_settings(values);
  return change([&](PluginChoices& choices) { choices.settings.insert_or_assign(plugin->id(), plugin->settings()); });
}

void PluginHost::watch_for_crashes() {
  static bool watching = false;
  if (std::exchange(watching, true)) return;
  if (options_.before_code) options_.before_code();
  crashing.store(crumbs_.get());
  for (const int number : kCrashes) {
    struct sigaction action {};
    action.sa_handler = note_crash;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    ::sigaction(number, &action, &before_ours[size_t(number)]);
  }
  std::atexit(note_exit);
  start_watch();
}

void PluginHost::start_watch() {
  watch_ = std::make_unique<Watch>();
  watch_->thread = std::thread([this, watch = watch_.get()] {
    std::map<const Breadcrumbs::Trail*, std::pair<uint64_t, int>> seen;  // number of the call, and for how many looks
    std::unique_lock lock(watch->mutex);
    const int most = std::max(1, int(options_.patience * 4));
    while (!watch->stop.wait_for(lock, std::chrono::milliseconds(250), [watch] { return watch->stopping; })) {
      for (const Breadcrumbs::Trail* trail : crumbs_->trails()) {
        auto& [number, looks] = seen[trail];
        const uint64_t now = trail->calls.load();
        const uint32_t call = trail->call.load();
        looks = call != 0 && now == number ? looks + 1 : 0;
        number = now;
        if (looks != most) continue;
        const std::string line = fmt::format(
            "The plugin {} has not come back from {}() for {:g} s. Code in the program's own process cannot be "
            "stopped; at the next start it is off.",
            trail->plugin, name(PluginCall(call)), options_.patience);
        tell(line);
        if (options_.hung) options_.hung(line);
      }
    }
  });
}

}  // namespace switchyard

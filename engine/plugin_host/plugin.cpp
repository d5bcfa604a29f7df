#include "engine/plugin_host/plugin.h"

#include <algorithm>
#include <array>
#include <chrono>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/plugin_host/check.h"
#include "engine/plugin_host/store.h"

namespace switchyard {

std::string_view name(PluginState state) {
  constexpr std::array kNames = {"not trusted", "ready", "loaded", "refused", "off"};
  return kNames[size_t(state)];
}

Plugin::Plugin(std::filesystem::path folder, Result<Manifest> manifest) : folder_(std::move(folder)) {
  if (!manifest) {
    manifest_.id = printable(folder_.filename().string(), 64);
    manifest_.title = manifest_.id;
    refused_ = manifest.error().message();
  } else {
    manifest_ = std::move(*manifest);
    const auto contract = [&](const ContractRange& range, int here, const char* what) {
      if (!range.holds(here) && refused_.empty())
        refused_ = fmt::format("needs {} contract {}{}, this program has {}.", what, range.least,
                               range.most > range.least ? fmt::format(" to {}", range.most) : "", here);
    };
    contract(manifest_.core, SY_CORE_CONTRACT, "core");
    contract(manifest_.view, SY_VIEW_CONTRACT, "view");
    if (manifest_.has_code() && refused_.empty()) {
      if (const auto hash = sha256_of_file(library()))
        sha256_ = *hash;
      else
        refused_ = hash.error().message();
      if (const auto owned = check_owner(library()); !owned && refused_.empty()) refused_ = owned.error().message();
    }
  }
  if (!manifest_.has_code()) trusted_ = true;  // data alone
}

PluginStatus Plugin::status() const {
  const std::scoped_lock lock(mutex_);
  PluginStatus out = status_;
  if (!refused_.empty())
    out.state = PluginState::kRefused, out.why = refused_;
  else if (off())
    out.state = PluginState::kOff, out.why = off_why_;
  else
    out.state = !trusted_ ? PluginState::kUntrusted : code_ ? PluginState::kLoaded : PluginState::kReady;
  return out;
}

std::string Plugin::why_not() const {
  const PluginStatus now = status();
  switch (now.state) {
    case PluginState::kRefused:
      return fmt::format("The plugin {} is refused: {}", id(), now.why);
    case PluginState::kOff:
      return fmt::format("The plugin {} is off: {}", id(), now.why);
    case PluginState::kUntrusted:
      return fmt::format(
          "The plugin {} is not trusted: its native code would have your rights. Look at its hash with "
          "switchyard plugin list, and trust it with switchyard plugin trust {}.",
          id(), id());
    case PluginState::kReady:
    case PluginState::kLoaded:
      break;
  }
  return {};
}

void Plugin::set_trusted(bool trusted) {
  const std::scoped_lock lock(mutex_);
  trusted_ = trusted || !manifest_.has_code();
}

void Plugin::turn_off(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  if (off()) return;
  off_why_ = why;
  off_.store(true);
}

void Plugin::close() {
  turn_off("the program ends.");
  tell = {};
  const std::scoped_lock lock(mutex_);
  if (code_) code_->close();
}

void Plugin::turn_on() {
  const std::scoped_lock lock(mutex_);
  off_.store(false);
  off_why_.clear();
}

void Plugin::fault(const std::string& what) {
  {
    const std::scoped_lock lock(mutex_);
    const auto found = status_.faults.find(what);
    if (found != status_.faults.end()) {
      ++found->second;
      return;
    }
    if (status_.faults.size() >= 64) return;
    status_.faults.emplace(what, 1);
  }
  if (tell) tell(fmt::format("Plugin {}: {}.", id(), what));
}

bool Plugin::setting(const std::string& key, std::string& value) const {
  const auto field = std::find_if(manifest_.settings.begin(), manifest_.settings.end(),
                                  [&](const PluginField& one) { return one.name == key; });
  if (field == manifest_.settings.end()) return false;
  const std::scoped_lock lock(mutex_);
  const auto set = settings_.find(key);
  auto text = field->text_of(set == settings_.end() ? field->standard : *set);
  if (!text) text = field->text_of(field->standard);
  value = text.value_or("");
  return true;
}

// Values that the manifest does not take any more are left out.
void Plugin::set_settings(nlohmann::json values) {
  nlohmann::json fits = nlohmann::json::object();
  for (const PluginField& field : manifest_.settings)
    if (values.contains(field.name) && field.text_of(values[field.name]) && values[field.name] != field.standard)
      fits[field.name] = values[field.name];
  const std::scoped_lock lock(mutex_);
  settings_ = std::move(fits);
}

nlohmann::json Plugin::settings() const {
  const std::scoped_lock lock(mutex_);
  return settings_;
}

PluginHooks Plugin::hooks() {
  return {[this](int level, const std::string& text) {
            if (level >= SY_INFO && tell) tell(fmt::format("Plugin {}: {}", id(), text));
          },
          [this](const std::string& key, std::string& value) { return setting(key, value); }};
}

Result<void> Plugin::usable() const {
  if (!manifest_.has_code()) return fail(ErrorCode::kPlugin, fmt::format("the plugin {} has no code.", id()));
  if (const std::string why = why_not(); !why.empty()) return fail(ErrorCode::kPlugin, why);
  // What runs is what was trusted.
  SY_TRY(const std::string now, sha256_of_file(library()));
  if (now != sha256_)
    return fail(ErrorCode::kPlugin,
                fmt::format("the library of the plugin {} has changed since the program started.", id()),
                printable(library().string(), 400), "Start again; its new hash asks for trust anew.");
  return {};
}

Result<std::shared_ptr<PluginCode>> Plugin::code(Breadcrumbs& crumbs) {
  const std::scoped_lock lock(opening_);
  {
    const std::scoped_lock state(mutex_);
    if (code_ && !off()) return code_;
  }
  SY_CHECK(usable());
  auto opened = open_here(crumbs);
  if (!opened) {
    turn_off(opened.error().message());
    if (tell) tell(fmt::format("Plugin {} is off: {}", id(), opened.error().message()));
  }
  return opened;
}

Result<std::shared_ptr<PluginCode>> Plugin::open_here(Breadcrumbs& crumbs) {
  const auto start = std::chrono::steady_clock::now();
  // The trial: what kills a process at once kills that one.
  SY_TRY(const auto trial, child(PluginKind::kScheme, ""));
  Message try_all;
  try_all.head = {{"op", "trial"}, {"schemes", nlohmann::json::array()}, {"edits", nlohmann::json::array()}};
  for (const Contribution& one : manifest_.contributions) {
    if (one.kind != PluginKind::kScheme && one.kind != PluginKind::kEdit) continue;
    try_all.head[one.kind == PluginKind::kScheme ? "schemes" : "edits"].push_back(
        {{"id", one.id}, {"parameters", standard_parameters(one.parameters)}, {"max_slots", one.max_slots}});
  }
  SY_CHECK(trial->ask(try_all));
  Breadcrumbs::Trail* const trail = crumbs.begin(id());
  SY_TRY(auto opened, PluginCode::open(library(), hooks(), trail));
  for (const std::string& one : opened->changed()) fault("init() changed " + one + "; it was put back");
  const std::scoped_lock lock(mutex_);
  status_.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return code_ = std::move(opened);
}

Result<std::unique_ptr<PluginChild>> Plugin::child(PluginKind kind, const std::string& name, Task* task) const {
  SY_CHECK(usable());
  ChildRequest request{id(), library(), sha256_};
  for (const PluginField& field : manifest_.settings) {
    std::string value;
    if (setting(field.name, value)) request.settings[field.name] = value;
  }
  request.kind = name.empty() ? "" : std::string(switchyard::name(kind));
  request.name = name;
  request.log = [this](int level, const std::string& text) {
    if (level >= SY_INFO && tell) tell(fmt::format("Plugin {}: {}", id(), text));
  };
  return PluginChild::start(request, task);
}

}  // namespace switchyard

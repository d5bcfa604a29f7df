// A process of switchyard-plugin-host with one plugin in it: 4 GB of memory, 60 s of CPU time for a step, 64
// descriptors, no new rights, no network, no programs, and once the plugin is begun no files. What it does there ends
// with it. Any thread, one at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/plugin_host/wire.h"

namespace switchyard {

struct ChildRequest {
  std::string plugin;  // id, for messages
  std::filesystem::path library;
  std::string sha256;                                  // that it must have; empty: not compared
  nlohmann::json settings = nlohmann::json::object();  // key: text
  std::string kind, name;                              // what is opened: "metric" and its id
  bool loud = false;                                   // what it prints goes to stderr
  std::function<void(int, const std::string&)> log;
};

class PluginChild {
 public:
  // Started, and the plugin begun in it. kPlugin: it did not survive that, with the signal by name.
  static Result<std::unique_ptr<PluginChild>> start(const ChildRequest& request, Task* task = nullptr);
  ~PluginChild();

  // Sends and gives what comes back that is neither log nor progress. kPlugin: it died (how), stood still, or says why
  // it failed ("fail" in the answer).
  Result<Message> ask(const Message& message);
  Result<void> tell(const Message& message);
  Result<Message> hear();

 private:
  PluginChild(ChildRequest request, pid_t pid, Descriptor descriptor, Task* task);
  tl::unexpected<Error> dead(const Error& why);
  void grant_time();

  ChildRequest request_;
  pid_t pid_;
  Wire wire_;
  Task* task_;
};

// Seconds of CPU time that a step of a child may take; SWITCHYARD_PLUGIN_PATIENCE (tests), else 60.
int child_patience();

}  // namespace switchyard

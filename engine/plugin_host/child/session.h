// One plugin in switchyard-plugin-host: answers what the program asks over the wire. Main thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/plugin_host/code.h"
#include "engine/plugin_host/wire.h"

namespace switchyard::plugin_child {

class Session {
 public:
  explicit Session(Wire& wire) : wire_(wire) {}
  ~Session();

  // Until the program is gone.
  void run();

 private:
  Result<Message> answer(Message& message);
  Result<Message> begin(const Message& message);
  Result<Message> trial(const Message& message);
  Result<Message> metric(Message& message);
  Result<Message> feed(Message& message);
  Result<Message> result();
  Result<Message> probe(Message& message);
  Result<Message> read(const Message& message);
  Result<Message> write(const Message& message);
  Result<Message> report(const Message& message);
  Result<Message> check(const Message& message);
  // The row's state, made when it is first needed.
  Result<void*> state_of(uint32_t row);
  // What a call that failed says.
  tl::unexpected<Error> failed(const CallContext& ctx, const std::string& what) const;

  Wire& wire_;
  std::shared_ptr<PluginCode> code_;
  nlohmann::json settings_;
  std::string name_;
  sy_metric metric_{};
  sy_trace_shape shape_{};
  std::vector<uint32_t> layers_;
  std::map<uint32_t, void*> states_;  // by row
};

// Runs schemes and edits on random logits of several shapes and looks at what they give: no exception, no NaN, ids in
// range and once, the same twice, within its buffers, no muted expert. `deep`: many shapes and edges. Throws nothing.
Result<void> try_scheme(PluginCode& code, const std::string& id, const std::vector<double>& parameters, int max_slots,
                        bool deep);
Result<void> try_edit(PluginCode& code, const std::string& id, const std::vector<double>& parameters, bool deep);
// Feeds random blocks, in one state and in two that are merged, and compares.
Result<void> try_metric(PluginCode& code, const std::string& id);
Result<void> try_reader(PluginCode& code, const std::string& id);
Result<void> try_writer(PluginCode& code, const std::string& id);
Result<void> try_view(PluginCode& code, const std::string& id);

// The limits that this process lives under; before a library is opened, and the tighter ones once its plugin is begun.
// An error where the kernel refuses.
Result<void> limit_process();
Result<void> forbid_files();

}  // namespace switchyard::plugin_child

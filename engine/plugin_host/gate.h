// A plugin's scheme or logit edit as the code of a recipe (SchemeCode): calls it under guard, looks at what it wrote,
// and says so when the model's own router has to stand in. Any thread; calls are put one after the other.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/plugin_host/fenced.h"
#include "engine/plugin_host/plugin.h"
#include "engine/routing/decision.h"
#include "engine/routing/device_code.h"
#include "engine/routing/scheme.h"

namespace switchyard {

class PluginGate final : public SchemeCode, public DeviceCode {
 public:
  static Result<std::shared_ptr<PluginGate>> make(std::shared_ptr<Plugin> plugin, const Contribution& contribution,
                                                  std::vector<double> parameters, Breadcrumbs& crumbs);

  bool edits_logits() const override { return edit_.apply != nullptr; }
  bool reads_input() const override { return ((edits_logits() ? edit_.needs : scheme_.needs) & SY_NEEDS_HIDDEN) != 0; }
  int state_floats() const override { return int(scheme_.state_bytes / 4); }
  int slots(int experts, int k) const override { return max_slots_ < 0 ? experts : max_slots_ > 0 ? max_slots_ : k; }
  bool decide(const CodeCall& call, const DecisionSpans& out, int& used) const override;
  bool edit(const CodeCall& call, std::span<float> logits) const override;

  const std::string& device_source() const override;
  const std::string& device_name() const override { return title_; }
  std::span<const double> device_parameters() const override { return parameters_; }
  void tell_of_device(const std::string& line, bool fault) const override;

 private:
  PluginGate() = default;
  sy_scheme_in input_of(const CodeCall& call, uint32_t slots) const;
  // Under the lock. False: the native gate stands in.
  template <class F>
  bool guarded(PluginCall what, const CodeCall& call, F&& work) const;

  std::shared_ptr<Plugin> plugin_;
  std::shared_ptr<PluginCode> code_;
  std::string title_, device_source_;
  sy_scheme scheme_{};
  sy_edit edit_{};
  int max_slots_ = 0;
  std::vector<double> parameters_;
  std::chrono::nanoseconds budget_{};
  bool check_calls_ = false;  // the environment behind every call
  mutable std::set<std::string> told_;
  // Of the call in hand.
  mutable int slow_ = 0;  // calls in a row over the budget
  mutable int32_t token_id_ = 0;
  mutable uint64_t position_ = 0;
  mutable FencedBuffer<uint32_t> count_;
  mutable FencedBuffer<int32_t> id_;
  mutable FencedBuffer<float> weight_, logits_;
  mutable FencedBuffer<uint8_t> flags_;
};

// Microseconds a layer while one token runs alone; SWITCHYARD_PLUGIN_BUDGET_US, else 50.
int plugin_budget();
inline constexpr int kSlowCalls = 8;  // in a row: the plugin is off

}  // namespace switchyard

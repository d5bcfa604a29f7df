// What adapt and run --adapt share: the options of an adaptation, and its log as JSON. Main thread.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "app/cli/output.h"
#include "engine/model/plan.h"
#include "engine/runtime/adapt.h"

namespace switchyard {

class AdaptInputOptions {
 public:
  // prefix: before every name but the method's own, "--adapt-" in run.
  void add_options(CLI::App& app, const std::string& method_option, const std::string& prefix);
  bool given() const { return method_given_->count() > 0; }
  AdaptOptions options() const;

 private:
  CLI::Option* method_given_ = nullptr;
  std::string method_ = "rewire";
  AdaptOptions options_;
};

// One iteration: loss before it, what it moved.
Document json_of(const AdaptStep& step);

}  // namespace switchyard

// The edit script of a command line: --recipe FILE, then --edits FILE. Main thread.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/edit.h"

namespace switchyard {

// A script file, checked against the model; errors name the file.
Result<std::vector<EditCommand>> read_script(const std::string& file, const ModelPlan& plan);

class EditsInput {
 public:
  void add_options(CLI::App& app);
  bool given() const { return !file_.empty() || !recipe_.empty(); }
  // The whole script, checked against the model; empty when none is given.
  Result<std::vector<EditCommand>> read(const ModelPlan& plan) const;

 private:
  std::string file_, recipe_;
};

}  // namespace switchyard

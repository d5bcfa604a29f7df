// Sections of reports that others give (plugins), listed beside analyses and studies. Entered once, before other
// threads; afterwards any thread.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/task.h"
#include "engine/report/report.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct GivenOption {
  std::string name, about;  // about: "pull towards the mean, 0 to 1 (0.5)"
};

struct SectionParts {
  std::string heading;  // empty: the title
  std::vector<ReportBlock> blocks;
};

struct GivenSection {
  std::string name;    // "slot-share.slots"
  std::string title;   // of the section, where it gives no heading of its own
  std::string maker;   // whose text and numbers they are: "plugin slot-share 1.0.0"
  std::string sha256;  // of the maker's code; empty: none
  std::vector<GivenOption> options;
  // An analysis of the program with a note before it, in the place of code. Empty: make().
  std::string analysis, note;
  // Why it cannot be used now, with the next step; empty: it can.
  std::function<std::string()> why_not;
  // kUsage: an option is unknown or wrong.
  std::function<Result<void>(const std::map<std::string, std::string>& options)> check;
  std::function<Result<SectionParts>(const TraceReader& trace, const std::map<std::string, std::string>& options,
                                     Task* task)>
      make;
};

void add_given_sections(std::vector<GivenSection> more);
std::span<const GivenSection> given_sections();
const GivenSection* find_given_section(std::string_view name);

}  // namespace switchyard

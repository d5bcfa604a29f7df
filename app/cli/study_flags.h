// Flags made of the options of studies (engine/studies). Main thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "app/cli/cli.h"
#include "engine/studies/study.h"

namespace switchyard {

// What the command line named, by option. Filled while it is parsed.
using GivenOptions = std::shared_ptr<std::map<std::string, std::string>>;

// of: whose option it is, where a command has several studies ("affinity"); empty: everyone's.
void add_flag_of(CLI::App& app, const StudyOption& option, const GivenOptions& given, const std::string& of = {});
void add_threads(CLI::App& app, int& threads);

// The study's options; given ones that it does not have are left out.
Result<StudyOptions> options_of(const StudyInfo& info, const std::map<std::string, std::string>& given);

// Runs it with signals and progress of the command line and says its notes. trace: empty: none.
Result<Document> run_study_of(Cli& cli, const StudyInfo& info, const StudyOptions& options, const std::string& trace,
                              int threads);

}  // namespace switchyard

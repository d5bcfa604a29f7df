// See study_flags.h.
#include "app/cli/study_flags.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "app/cli/trace_input.h"

namespace switchyard {
namespace {

template <class T>
CLI::Option* add_number(CLI::App& app, const std::string& flag, const std::string& help, const StudyOption& option,
                        const GivenOptions& given) {
  const std::string name = option.name;
  return app.add_option_function<T>(
      flag, [given, name](const T& value) { (*given)[name] = fmt::format("{}", value); }, help);
}

CLI::Option* add_text(CLI::App& app, const std::string& flag, const std::string& help, const StudyOption& option,
                      const GivenOptions& given) {
  const std::string name = option.name;
  return app.add_option_function<std::string>(
      flag, [given, name](const std::string& value) { (*given)[name] = value; }, help);
}

CLI::Option* add_option_of(CLI::App& app, const std::string& flag, const std::string& help, const StudyOption& option,
                           const GivenOptions& given) {
  switch (option.kind) {
    case OptionKind::kWhole:
      if (option.most > double(INT64_MAX / 2)) return add_number<uint64_t>(app, flag, help, option, given);
      return add_number<int64_t>(app, flag, help, option, given)
          ->check(CLI::Range(int64_t(option.least), int64_t(option.most)));
    case OptionKind::kReal:
      return add_number<double>(app, flag, help, option, given)->check(CLI::Range(option.least, option.most));
    case OptionKind::kChoice: {
      auto* added = add_text(app, flag, help, option, given);
      if (option.check == nullptr)
        added->check(CLI::IsMember(std::vector<std::string>(option.choices.begin(), option.choices.end())));
      return added;
    }
    case OptionKind::kSwitch: {
      const std::string name = option.name;
      return app.add_flag_callback(
          flag, [given, name] { (*given)[name] = "on"; }, help);
    }
    case OptionKind::kList:
      return add_text(app, flag, help, option, given)->type_name("LIST");
    case OptionKind::kFile:
      break;
  }
  return add_text(app, flag, help, option, given)->type_name("FILE");
}

}  // namespace

void add_flag_of(CLI::App& app, const StudyOption& option, const GivenOptions& given, const std::string& of) {
  std::string help = of.empty() ? option.help : of + ": " + option.help;
  if (option.kind == OptionKind::kChoice && option.check != nullptr) {
    help += ":";
    for (const char* choice : option.choices)
      help += (choice == option.choices.front() ? " " : ", ") + std::string(choice);
  }
  if (*option.standard != '\0') help += " (" + std::string(option.standard) + ")";
  auto* added = add_option_of(app, "--" + std::string(option.name), help, option, given);
  if (option.required) added->required();
}

void add_threads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "Threads (one per core)")->check(CLI::Range(0, 256));
}

Result<StudyOptions> options_of(const StudyInfo& info, const std::map<std::string, std::string>& given) {
  StudyOptions options(info.options);
  for (const StudyOption& option : info.options)
    if (const auto value = given.find(option.name); value != given.end())
      SY_CHECK(options.set(option.name, value->second));
  return options;
}

Result<Document> run_study_of(Cli& cli, const StudyInfo& info, const StudyOptions& options, const std::string& trace,
                              int threads) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  if (info.check != nullptr) SY_CHECK(info.check(options));
  std::optional<TraceInput> opened;
  if (!trace.empty()) {
    SY_TRY(TraceInput input, open_trace(cli, trace, &task));
    opened.emplace(std::move(input));
  }
  StudyInput input;
  input.walk = opened ? &opened->walk : nullptr;
  input.threads = threads;
  SY_TRY(StudyResult result, run_study(info, options, input, task));
  for (const StudyNote& note : result.notes)
    cli.output.message(note.warning ? MessageLevel::kWarning : MessageLevel::kInfo, note.text);
  return std::move(result.document);
}

}  // namespace switchyard

// What the simulations of `switchyard simulate` share: the trace and the walk over it, progress, and the end. One file
// for each simulation adds its options. Main thread.
#pragma once

#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/table_output.h"
#include "app/cli/trace_input.h"
#include "engine/base/text.h"

namespace switchyard {

struct SimulatedTrace {
  std::string trace;
  TableOptions tables;
};

inline std::vector<std::string> words(const std::string& list) {
  std::vector<std::string> out;
  for (size_t from = 0; from <= list.size();) {
    const size_t comma = std::min(list.find(',', from), list.size());
    out.push_back(list.substr(from, comma - from));
    from = comma + 1;
  }
  return out;
}

// Numbers joined by commas, each within the range; option: named in errors.
template <class T>
Result<std::vector<T>> numbers(const std::string& list, const char* option, T min, T max) {
  std::vector<T> out;
  for (const std::string& word : words(list)) {
    T value{};
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (problem != std::errc() || end != word.data() + word.size() || !(value >= min && value <= max))
      return fail(ErrorCode::kUsage,
                  fmt::format("holds {}, needs numbers from {} to {}, joined by commas.", quote(word, 40), min, max),
                  option);
    out.push_back(value);
  }
  return out;
}

inline double share(uint64_t part, uint64_t of) {
  return of ? double(part) / double(of) : 0.0;
}

inline Document list_of(std::span<const uint64_t> values) {
  return std::vector<uint64_t>(values.begin(), values.end());
}

// What every simulation shares: the trace, the walk over it, progress and the end.
class Simulation {
 public:
  Simulation(Cli& cli, const SimulatedTrace& options, const std::string& name)
      : cli_(cli),
        options_(options),
        name_(name),
        cancel_(cli.interrupts.on_interrupt([this] { task.cancel(); })),
        progress_(cli.output, cli.progress(),
                  [this] {
                    return ProgressState{task.step(), task.fraction()};
                  }),
        document{{"simulation", name}, {"schema", kSchema}} {}

  Result<void> open() {
    SY_TRY(TraceInput opened, open_trace(cli_, options_.trace, &task));
    document["trace"] = std::move(opened.document);
    walk_ = std::make_unique<TraceWalk>(std::move(opened.walk));
    return {};
  }
  const TraceShape& shape() const { return walk_->shape(); }
  int layer(int row) const { return shape().layers[size_t(row)]; }
  Result<void> run(std::set<std::string> fields, const std::function<Result<void>(const RoutingSlab&)>& take,
                   double from = 0, double to = 1) {
    walk_->carry(std::move(fields));
    return walk_->run(take, &task, from, to);
  }
  int show() {
    show_result(cli_, options_.tables, "simulate " + name_, std::move(document));
    return 0;
  }
  Cli& cli() { return cli_; }

  Task task;

 private:
  Cli& cli_;
  const SimulatedTrace& options_;
  std::string name_;
  std::shared_ptr<void> cancel_;
  Progress progress_;
  std::unique_ptr<TraceWalk> walk_;

 public:
  Document document;
};

// Adds one simulation; `run` is called with its own options. Returns the command and those options.
template <class Choice>
std::pair<CLI::App*, std::shared_ptr<Choice>> add_simulation(
    CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace, const std::string& name,
    const std::string& description, const std::string& examples,
    Result<int> (*run)(Cli&, const SimulatedTrace&, const Choice&)) {
  CLI::App* command = add_command(noun, name, description, examples);
  trace->tables.add_options(*command);
  const auto choice = std::make_shared<Choice>();
  command->callback(
      [&cli, trace, choice, run] { cli.action = [&cli, trace, choice, run] { return run(cli, *trace, *choice); }; });
  return {command, choice};
}

void add_simulate_cache(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace);
void add_simulate_capacity(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace);
void add_simulate_traffic(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace);
void add_simulate_schedule(CLI::App& noun, Cli& cli, const std::shared_ptr<SimulatedTrace>& trace);

}  // namespace switchyard

// Opening the trace of a command, see trace_input.h.
#include "app/cli/trace_input.h"

#include "engine/trace/trace_json.h"

namespace switchyard {

Result<TraceInput> open_trace(Cli& cli, const std::string& path, Task* task) {
  SY_TRY(auto reader, TraceReader::open(path, task));
  for (const std::string& note : reader->info().notes) cli.output.warn(path + ": " + note + ".");
  Document document = trace_json(reader->info());
  std::vector<std::unique_ptr<TraceReader>> readers;
  readers.push_back(std::move(reader));
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers)));
  return TraceInput{std::move(walk), std::move(document)};
}

}  // namespace switchyard

// Recording to a trace, see recording.h.
#include "app/cli/recording.h"

#include <filesystem>

#include "app/cli/edits_input.h"
#include "engine/routing/tap_names.h"

namespace switchyard {

void RecordingOptions::add_options(CLI::App& app) {
  app.add_option("--trace", file_, "Record the routing of every token here (*.moetrace.h5)")->type_name("FILE");
  app.add_option("--capture", capture_, "off, ids, weights or logits (weights with --trace)")
      ->check(CLI::IsMember({"off", "ids", "weights", "logits"}))
      ->type_name("LEVEL");
  std::vector<std::string> taps;
  for (const TapName& known : kTapNames) taps.emplace_back(known.name);
  app.add_option("--taps", taps_, "Further datasets for the trace, joined by commas: out_norm, block_cos, pred_gate")
      ->check(CLI::IsMember(taps))
      ->delimiter(',')
      ->type_name("NAMES");
  app.add_flag("--routers", routers_, "Put the routers' weights into the trace (analysis router-similarity)");
}

Result<void> RecordingOptions::check(bool force) const {
  if (!wanted() && !taps_.empty()) return fail(ErrorCode::kUsage, "go into a trace, and none is recorded.", "--taps", "Give --trace FILE.");
  if (!wanted() && routers_) return fail(ErrorCode::kUsage, "go into a trace, and none is recorded.", "--routers", "Give --trace FILE.");
  if (!wanted()) return {};
  if (level() == CaptureLevel::kOff)
    return fail(ErrorCode::kUsage, "a trace cannot be recorded with --capture off.", "--trace",
                "Use ids, weights or logits.");
  if (!file_.ends_with(".moetrace.h5"))
    return fail(ErrorCode::kUsage, "needs to end in .moetrace.h5.", "--trace " + file_);
  std::error_code ignored;
  if (!force && std::filesystem::exists(file_, ignored))
    return fail(ErrorCode::kOutput, "exists already.", file_, "Choose another name, or overwrite it with --force.");
  return {};
}

uint8_t RecordingOptions::taps() const {
  uint8_t taps = 0;
  for (const std::string& name : taps_)
    for (const TapName& known : kTapNames)
      if (name == known.name) taps |= known.tap;
  return taps;
}

CaptureLevel RecordingOptions::level() const {
  if (capture_ == "ids") return CaptureLevel::kIds;
  if (capture_ == "logits") return CaptureLevel::kLogits;
  if (capture_ == "weights" || (capture_.empty() && wanted())) return CaptureLevel::kWeights;
  return CaptureLevel::kOff;
}

Result<std::shared_ptr<TraceRecorder>> RecordingOptions::create(const Checkpoint& checkpoint,
                                                                const std::vector<EditCommand>& start, Document run,
                                                                bool force, int chunk_rows, Task& task,
                                                                std::vector<std::string> domains) const {
  SY_TRY(TraceHeader header, make_trace_header(checkpoint, level(), &task));
  run["tool_version"] = SWITCHYARD_VERSION;
  header.taps = taps();
  if (routers_) SY_CHECK(add_router_weights(header, checkpoint, &task));
  header.domains = std::move(domains);
  header.edits_json = to_json_script(start);
  header.run_json = run.dump(-1, ' ', false, Document::error_handler_t::replace);
  RecorderOptions options;
  options.overwrite = force;
  options.chunk_rows = chunk_rows;
  return TraceRecorder::create(file_, header, options);
}

Document traces_json(const TraceRecorder& recorder) {
  Document files = Document::array();
  for (const std::filesystem::path& path : recorder.paths()) files.push_back(path.string());
  return files;
}

std::string several_traces(const TraceRecorder& recorder) {
  std::string text = "a scheme or a layer path asked for more rows, so that the recording goes on in";
  const auto paths = recorder.paths();
  for (size_t i = 1; i < paths.size(); ++i) text += (i > 1 ? ", " : " ") + paths[i].string();
  return text + ".";
}

std::vector<EditCommand> edits_at_start(const std::vector<EditCommand>& script) {
  std::vector<EditCommand> start;
  for (const EditCommand& command : script)
    if (command.at_token.value_or(0) == 0) start.push_back({command.edit, std::nullopt});
  return start;
}

}  // namespace switchyard

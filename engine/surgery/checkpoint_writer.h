// Writes what edits leave behind: a model with its experts taken out, merged, moved or scaled and its routers rewritten,
// as a folder of the Hugging Face form. Called by `switchyard export` and by the window's export job; one thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"
#include "engine/surgery/output_tensors.h"

namespace switchyard {

struct ExportSummary {
  std::vector<std::string> changes;  // a sentence for each edit in force
  std::vector<std::string> notes;    // what the reader should know: experts taken out, values that were rounded
  std::vector<KeptExperts> kept;     // [rows]: old ids in the order of the new
  std::vector<int> experts_per_token;  // [rows]
  uint64_t bytes_before = 0, bytes_after = 0;
};

class CheckpointWriter {
 public:
  // Works everything out and reads no weights. kUsage, naming every reason, where the architecture cannot express the
  // edits, an edit begins later than the first token, or the checkpoint is quantised or a GGUF file.
  static Result<CheckpointWriter> plan(const Checkpoint& checkpoint, const std::vector<EditCommand>& script);

  const ExportSummary& summary() const { return summary_; }

  // All or nothing: a folder beside it is filled, opened as a check and then given the name. The folder may exist only
  // if it is empty. Memory: one tensor at a time. kOutput where it cannot be written, kCancelled where the task asks.
  Result<void> write(const std::filesystem::path& folder, Task* task) const;

 private:
  CheckpointWriter(const Checkpoint& checkpoint, const std::vector<EditCommand>& script)
      : checkpoint_(&checkpoint), script_(script) {}
  Result<void> write_into(const std::filesystem::path& folder, Task* task) const;
  Result<void> write_shard(const std::filesystem::path& folder, int shard, const WeightStore& weights, uint64_t& done, Task* task) const;
  Result<void> check(const std::filesystem::path& folder) const;
  std::string provenance() const;

  const Checkpoint* checkpoint_;  // must outlive the writer
  std::vector<EditCommand> script_;
  std::string config_;
  OutputTensors tensors_;
  ExportSummary summary_;
};

}  // namespace switchyard

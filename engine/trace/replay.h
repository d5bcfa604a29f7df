// The routes of a recorded sequence as the gating scheme "replay": the same experts with the same weights, token by
// token, on a run of the same or a compatible model. Reads files: a job's thread, or the command line's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"

namespace switchyard {

struct Replay {
  std::vector<TokenId> prompt;     // as Session's Start takes it
  std::vector<TokenId> generated;  // routed after it
  // How the record was sampled, where it says so; the same gives the same text on the same model.
  std::optional<SamplingDefaults> sampling;
  std::optional<uint64_t> seed;
  EditCommand edit;                // the scheme "replay" in every layer
  std::vector<std::string> notes;  // what a user should know: sentences
};

// sequence: of the trace, from 0. kUsage where layers, experts, slots or token ids do not fit the model, and for a
// sequence that a rewind began (its first tokens stand in another); kNotFound, kMalformed for the file.
Result<Replay> read_replay(const std::filesystem::path& trace, int sequence, const ModelPlan& plan, Task* task = nullptr);

// From here on scripts that name the scheme "replay" can be read. Once, before threads start.
void read_schemes_from_traces();

}  // namespace switchyard

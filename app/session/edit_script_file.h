// An edit script read from a file for a model; a job's thread.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/edit.h"

namespace switchyard {

// At most 16 MiB; errors name the file and the entry. A script without edits is an error.
Result<std::vector<EditCommand>> read_script_file(const std::filesystem::path& file, const ModelPlan& plan);

}  // namespace switchyard

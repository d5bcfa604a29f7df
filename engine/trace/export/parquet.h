// Whether Parquet can be written here. Any thread.
#pragma once

#include <filesystem>

#include "engine/base/result.h"

namespace switchyard {

// The module that writes it, unless it is absent. Loads nothing.
Result<std::filesystem::path> find_parquet_module();

}  // namespace switchyard

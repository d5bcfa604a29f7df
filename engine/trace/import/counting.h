// Counts as several formats hold them: numbers of [layers, experts] or [passes, layers, experts].
#pragma once

#include <string>

#include "engine/base/result.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/tensor.h"

namespace switchyard::dumps {

// Layers are numbered from 0 as the axis has them. Passes without a choice are left out: a ring that was not filled.
// A value that is no whole number is refused.
Result<void> give_counts(const Numbers& counts, const std::string& where, DumpSink& sink);

}  // namespace switchyard::dumps

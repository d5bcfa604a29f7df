// Two recordings of the same tokens side by side, as the document of `trace compare --json` has it (specs/analyses.md A6).
#pragma once

#include "engine/studies/study.h"
#include "engine/trace/compare.h"

namespace switchyard {

// The numbers: tokens, what was left out, overlap and first differences by layer, and what chance would share.
Document comparison_fields(const TraceComparison& found);

}  // namespace switchyard

// Reports as PDF, drawings as PDF and PNG, through the paper module. Any thread, one at a time.
#pragma once

#include <string>

#include "engine/base/result.h"
#include "engine/report/report.h"

namespace switchyard {

// The bytes of the file. kNotFound: the module is not installed; kOutput: cairo's own word.
Result<std::string> pdf_of(const Report& report);
Result<std::string> pdf_of(const Drawing& drawing);
// pixels a point: 1, 2, or 300 / 72 for print.
Result<std::string> png_of(const Drawing& drawing, const ChartColors& colors, double scale);

}  // namespace switchyard

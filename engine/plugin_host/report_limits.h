// How much a report section of a plugin may give; both sides of the wire keep to it, and plugin.h says it. Bytes and
// counts.
#pragma once

#include <cstddef>

namespace switchyard {

inline constexpr size_t kReportParts = 64, kReportText = 64 << 10, kReportTitle = 300, kReportCaption = 600,
                        kReportName = 200, kReportFile = 60;
inline constexpr size_t kReportColumns = 64, kReportRows = 1000, kReportCells = 65'536, kReportLinks = 4096;
inline constexpr size_t kReportWords = 3 << 20;  // of one part, as JSON; less than a line of the wire

}  // namespace switchyard

// Verbs of `switchyard trace` that have a file of their own. Main thread.
#pragma once

#include "app/cli/cli.h"

namespace switchyard {

void add_trace_export(CLI::App& noun, Cli& cli);
void add_trace_import(CLI::App& noun, Cli& cli);

}  // namespace switchyard

// `switchyard report`. Main thread.
#pragma once

#include "app/cli/cli.h"

namespace switchyard {

void add_report(CLI::App& app, Cli& cli);

}  // namespace switchyard

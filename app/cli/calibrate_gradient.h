// switchyard calibrate gradient, a command of the noun calibrate. Main thread.
#pragma once

#include "app/cli/cli.h"

namespace switchyard {

void add_calibrate_gradient(CLI::App& noun, Cli& cli);

}  // namespace switchyard

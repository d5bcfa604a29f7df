// The commands about GPUs, caches and networks; main.cpp adds them. Main thread.
#pragma once

#include "app/cli/cli.h"

namespace switchyard {

void add_place(CLI::App& app, Cli& cli);
void add_simulate(CLI::App& app, Cli& cli);

}  // namespace switchyard

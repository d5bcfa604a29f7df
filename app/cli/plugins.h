// Plugins in the command line: found before the commands are built, because they add to them. Main thread.
#pragma once

#include "app/cli/cli.h"

namespace switchyard {

// Reads --plugin-path, --trust-plugin and --safe-mode by itself.
void start_plugins(int argc, char** argv);
// What plugins logged and did wrong since the last call, as warnings.
void tell_of_plugins(Output& output);

void add_plugin_options(CLI::App& app);
void add_plugin(CLI::App& app, Cli& cli);

}  // namespace switchyard

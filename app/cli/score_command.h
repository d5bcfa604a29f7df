// What other commands take of `switchyard score`. Main thread.
#pragma once

#include <string>

#include "app/cli/cli.h"
#include "app/cli/forced.h"

namespace switchyard {

// Reads texts with the model, as `score --texts FILE --trace TRACE` does; texts empty: the prompts that come with the
// program, a domain each. Shows progress, prints nothing. kOutput: the trace exists, without --force.
Result<void> record_texts(Cli& cli, const std::string& model, const std::string& texts, const BackendChoice& backend,
                          const std::string& trace);

}  // namespace switchyard

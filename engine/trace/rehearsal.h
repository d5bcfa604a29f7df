// libhdf5 1.10 itself crashes or never returns on some damaged files (design: reliability.md, section 3). What
// is about to be read is therefore read once in a forked child: if the child dies, the file is refused.
// Called by the reader, verify and recover, from any thread.
#pragma once

#include <filesystem>
#include <functional>

#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

// Runs `work` in a child process and gives what it gives, so that a file it refuses is not looked at again
// here. kMalformed, naming the file, when the child crashes or stands still: 5 s of CPU time, or a minute
// in which it hardly got any, without a step. It may take 4 GiB of memory beyond what this process has.
// kCancelled soon after the task is cancelled.
// No thread is inside libhdf5 at the moment of the fork, so the child may call the library.
Result<void> rehearse(const std::filesystem::path& path, const std::function<Result<void>()>& work, Task* task = nullptr);

// The same for work that is done in the child for good: an import, whose parser of foreign bytes never runs in this
// process. 60 s of CPU time for a step. `reader` is named when the child dies; what it leaves behind is the caller's to remove.
Result<void> run_in_child(const std::filesystem::path& path, const std::string& reader, const std::function<Result<void>()>& work,
                          Task* task = nullptr);

// `work` got one bounded piece further. Does nothing outside of a rehearsal.
void rehearsal_step();
// The same, and what the task in the parent shows from now on. `step` is a literal.
void rehearsal_step(double fraction, const char* step);

}  // namespace switchyard

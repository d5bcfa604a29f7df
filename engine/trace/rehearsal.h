// libhdf5 1.10 itself crashes or hangs on some damaged files (design: reliability.md, section 3). What is
// about to be read is therefore read once in a forked child: if the child dies, the file is refused.
// Called by the reader, verify and recover, from any thread.
#pragma once

#include <filesystem>
#include <functional>

#include "engine/base/result.h"

namespace switchyard {

// Runs `work` in a child process with limits on CPU time and wall time. kMalformed, naming the file, when
// the child does not end by itself; what `work` itself reports is ignored, the caller will see it again.
// No thread is inside libhdf5 at the moment of the fork, so the child may call the library.
Result<void> rehearse(const std::filesystem::path& path, const std::function<void()>& work);

}  // namespace switchyard

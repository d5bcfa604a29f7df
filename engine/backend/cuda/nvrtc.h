// NVRTC, NVIDIA's compiler as a library, opened at the first use: no part of the program and not needed by it. It needs
// no GPU. Engine thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/base/result.h"

namespace switchyard::cuda {

struct KernelText {
  std::string name;                                          // of the text, in messages
  std::string text;                                          // CUDA C++
  std::vector<std::pair<std::string, std::string>> headers;  // by the name that is included, and their text
};

// architecture: "sm_90" gives machine code (a cubin), "compute_90" PTX. kNotFound where there is no NVRTC
// (SWITCHYARD_NVRTC_LIB names the file, else it is where the loader looks); kMalformed with the compiler's own words,
// in the text's line numbers.
Result<std::string> compile(const KernelText& text, const std::string& architecture);

}  // namespace switchyard::cuda

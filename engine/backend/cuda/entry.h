// The one symbol of libswitchyard_cuda.so. Called by make_cuda_backend() after dlopen.
#pragma once

#include "engine/backend/reference/entry.h"

namespace switchyard {

inline constexpr const char* kCudaEntry = "switchyard_cuda_open";

// As the reference module's: returns the module's own layout; fills `backend` only where it equals the caller's. Never
// throws.
using CudaEntry = ReferenceEntry;
using CudaOpen = ReferenceOpen;
inline constexpr uint64_t kCudaLayout = kReferenceLayout;

}  // namespace switchyard

// What the emulated device tells tests: bytes that kernels read, by kernel. And how much memory it has.
#pragma once

#include <cstdint>
#include <map>
#include <string>

struct SchemeJob;  // engine/backend/cuda/scheme_kernel.cuh

namespace switchyard::cuda {

struct Traffic;  // engine/backend/cuda/intrinsics.cuh
const std::map<std::string, Traffic>& traffic_by_kernel();
void forget_traffic();
void limit_device_memory(uint64_t bytes);
// The next wait() for the device fails, as if a kernel had read a wild address.
void fail_next_wait();
// What compile_kernel() gives for a text of this name; of others it says that there is no NVRTC.
void stand_in_for(const std::string& name, void (*kernel)(SchemeJob));

}  // namespace switchyard::cuda

// Where kernels are launched. Owned by the engine thread.
#pragma once

namespace switchyard::cuda {

struct Stream {
  void* native = nullptr;        // cudaStream_t
  int processors = 4;            // multiprocessors of the device: bounds grids that loop
  bool early_start = false;      // programmatic dependent launch
  int error = 0;                 // of the first launch that failed, a cudaError_t
  const char* failed = nullptr;  // that kernel
  int layer = -1;                // whose kernels are being launched
  int failed_layer = -1;
};

}  // namespace switchyard::cuda

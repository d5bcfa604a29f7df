// The module's entry. See entry.h.
#include "engine/backend/cuda/entry.h"

#include "engine/backend/cuda/cuda_backend.h"

extern "C" [[gnu::visibility("default")]] uint64_t switchyard_cuda_open(switchyard::CudaOpen* open) {
  using namespace switchyard;
  if (open->layout != kCudaLayout) return kCudaLayout;
  open->backend = [&]() -> Result<std::unique_ptr<Backend>> {
    SY_TRY(const cuda::CudaOptions how, cuda::options_from_environment(*open->plan));
    SY_TRY(auto made,
           cuda::make_backend_on_device(*open->plan, std::move(open->weights), open->options, how, open->task));
    return made;
  }();
  return kCudaLayout;
}

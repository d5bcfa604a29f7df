// The backend "cuda". Made on the opening thread; forward() and decode() are the engine thread's.
#pragma once

#include <memory>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

class CudaBackend : public Backend {
 public:
  // `count` tokens chosen on the device, the first of them after `token`, which follows what the cache holds: the host
  // looks at none of them in between. Appends `token` and all chosen but the last one. frames: of the tokens appended,
  // or empty.
  virtual Result<std::vector<TokenId>> decode(KvCache& cache, const Recipe& recipe, TokenId token, int count,
                                              const Sampler& sampler, uint32_t sequence,
                                              std::span<RoutingFrame> frames) = 0;
  // Bytes of weights on the card and in host memory that the card reads.
  virtual std::pair<uint64_t, uint64_t> weight_bytes() const = 0;
};

struct CudaOptions {
  Stored keys = Stored::kF32;  // of keys and values
  uint64_t room = 0;           // bytes of weights on the card; 0: what is free
};
// From SWITCHYARD_CUDA_KV (f32, bf16; without it the type of the model's matrices).
Result<CudaOptions> options_from_environment(const ModelPlan& plan);

Result<std::unique_ptr<CudaBackend>> make_backend_on_device(const ModelPlan& plan,
                                                            std::shared_ptr<const WeightStore> weights,
                                                            const BackendOptions& options, const CudaOptions& how,
                                                            Task* task);

}  // namespace switchyard::cuda

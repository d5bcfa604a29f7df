// See tests/cuda_on_cpu/on_device.h: a GPU orders its threads itself, and its exp() is not the host's.
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {

bool exact() {
  return false;
}
std::vector<uint64_t> thread_orders() {
  return {0, 1};
}  // twice: a run repeats bit for bit
WithOrder::WithOrder(uint64_t) : before_(0) {}
WithOrder::~WithOrder() = default;

}  // namespace switchyard::cuda::testing

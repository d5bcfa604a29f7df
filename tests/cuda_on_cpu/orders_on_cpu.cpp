// See on_device.h: the emulator's side.
#include "tests/cuda_on_cpu/cuda_on_cpu.h"
// After the emulator:
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {

bool exact() {
  return true;
}
std::vector<uint64_t> thread_orders() {
  return {0, 1, 2, 3};
}
WithOrder::WithOrder(uint64_t order) : before_(cuda_on_cpu::seed()) {
  cuda_on_cpu::seed() = order;
}
WithOrder::~WithOrder() {
  cuda_on_cpu::seed() = before_;
}

}  // namespace switchyard::cuda::testing

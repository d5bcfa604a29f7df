// device.h where kernels run on the emulator: "device" memory is host memory with guard zones, poisoned at first, so
// that AddressSanitizer sees what a kernel reads or writes past its end. Copies and launches happen at once, in a
// captured graph when it is launched.
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tests/cuda_on_cpu/cuda_on_cpu.h"
// After the emulator:
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/intrinsics.cuh"
#include "tests/cuda_on_cpu/device_on_cpu.h"

// The host's part of it.
#undef CUDA_ON_CPU
#include "engine/backend/cuda/scheme_kernel.cuh"

namespace switchyard::cuda {
namespace {

struct Memory {
  std::mutex lock;
  std::unordered_map<const void*, std::unique_ptr<cuda_on_cpu::Guarded>> pieces;
  uint64_t device_bytes = 0, limit = uint64_t(8) << 30;
};
Memory& memory() {
  static Memory all;
  return all;
}

std::map<std::string, Traffic>& by_kernel() {
  static std::map<std::string, Traffic> all;
  return all;
}
Traffic*& running() {
  static Traffic none;
  static Traffic* kernel = &none;
  return kernel;
}

bool fails = false;

using Recording = std::vector<std::function<void(Stream&)>>;

class Recorded final : public Graph {
 public:
  explicit Recorded(Recording launches) : launches_(std::move(launches)) {}
  Result<void> launch(Stream& stream) override {
    for (const auto& one : launches_) one(stream);
    return {};
  }

 private:
  Recording launches_;
};

std::map<std::string, void (*)(SchemeJob)>& stand_ins() {
  static std::map<std::string, void (*)(SchemeJob)> all;
  return all;
}

class StandIn final : public CompiledKernel {
 public:
  explicit StandIn(void (*kernel)(SchemeJob)) : kernel_(kernel) {}
  void launch(Stream&, unsigned blocks, unsigned threads, void* argument) override {
    begin_kernel("sy_decide");
    cuda_on_cpu::launch(dim3(blocks), dim3(threads), 0, kernel_, *static_cast<const SchemeJob*>(argument));
  }

 private:
  void (*kernel_)(SchemeJob);
};

}  // namespace

Traffic& traffic() {
  return *running();
}
void begin_kernel(const char* name) {
  running() = &by_kernel()[name];
  ++running()->launches;
}
bool record_launch(Stream& stream, std::function<void(Stream&)> launch) {
  if (!stream.native) return false;
  static_cast<Recording*>(stream.native)->push_back(std::move(launch));
  return true;
}

const std::map<std::string, Traffic>& traffic_by_kernel() {
  return by_kernel();
}
void forget_traffic() {
  by_kernel().clear();
}
void fail_next_wait() { fails = true; }
void limit_device_memory(uint64_t bytes) {
  memory().limit = bytes;
}

Result<DeviceInfo> open_device() {
  SY_TRY(const uint64_t free, free_memory());
  return DeviceInfo{"the block emulator", 9, 0, 4, memory().limit, free};
}
Result<uint64_t> free_memory() {
  const std::scoped_lock lock(memory().lock);
  return memory().limit - std::min(memory().limit, memory().device_bytes);
}
Result<void> use_device() {
  return {};
}

Buffer::~Buffer() {
  if (!data_) return;
  const std::scoped_lock lock(memory().lock);
  const auto found = memory().pieces.find(data_);
  if (!found->second->intact()) {
    std::fprintf(stderr, "a kernel wrote outside of a buffer of %zu bytes\n", bytes_);
    std::abort();
  }
  if (place_ == Place::kDevice) memory().device_bytes -= bytes_;
  memory().pieces.erase(found);
}

Result<Buffer> Buffer::make(size_t bytes, Place place, const std::string& what) {
  const std::scoped_lock lock(memory().lock);
  if (place == Place::kDevice && memory().device_bytes + bytes > memory().limit)
    return fail(ErrorCode::kMemory, "cudaMalloc of " + std::to_string(bytes) + " bytes failed: out of memory.", what);
  auto piece = std::make_unique<cuda_on_cpu::Guarded>(bytes);
  Buffer out;
  out.data_ = piece->data(), out.bytes_ = bytes, out.place_ = place;
  if (place == Place::kDevice) memory().device_bytes += bytes;
  memory().pieces.emplace(out.data_, std::move(piece));
  return out;
}

Result<Stream> make_stream(const DeviceInfo& device) {
  Stream stream;
  stream.processors = device.processors;
  return stream;
}
void close_stream(Stream& stream) {
  stream = {};
}

Result<void> copy(Stream&, void* to, const void* from, size_t bytes, const char*) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return {};
}
Result<void> clear(Stream&, void* to, size_t bytes, const char*) {
  std::memset(to, 0, bytes);
  return {};
}
Result<void> wait(Stream& stream, const std::string& what) {
  if (stream.error != 0)
    return fail(ErrorCode::kDevice, std::string("the launch of kernel ") + stream.failed + " failed.", what);
  if (std::exchange(fails, false))
    return fail(ErrorCode::kDevice, "cudaStreamSynchronize failed: an illegal memory access (cudaErrorIllegalAddress).",
                what);
  return {};
}

Result<std::unique_ptr<Graph>> capture(Stream& stream, const std::function<void(Stream&)>& launches) {
  Recording recording;
  stream.native = &recording;
  launches(stream);
  stream.native = nullptr;
  return std::make_unique<Recorded>(std::move(recording));
}

void stand_in_for(const std::string& name, void (*kernel)(SchemeJob)) {
  stand_ins()[name] = kernel;
}
Result<std::unique_ptr<CompiledKernel>> compile_kernel(const KernelText& text, const char*) {
  const auto found = stand_ins().find(text.name);
  if (found == stand_ins().end()) return fail(ErrorCode::kNotFound, "NVRTC is not there.", text.name);
  return std::make_unique<StandIn>(found->second);
}

}  // namespace switchyard::cuda

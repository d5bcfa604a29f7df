// The CUDA runtime behind device.h.
#include "engine/backend/cuda/device.h"

#include <cuda_runtime_api.h>

#include <cstdlib>

namespace switchyard::cuda {
namespace {

// What to do about an error, as far as its kind says.
const char* hint_of(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
      return "The CUDA backend needs an NVIDIA driver for CUDA 13 and a GPU of compute capability 8.0 or later; use "
             "--backend cpu.";
    case cudaErrorMemoryAllocation:
      return "Use a shorter context, a smaller model, or --backend cpu.";
    default:
      return "The device cannot be used any more in this process: start the program again; --backend cpu needs no "
             "device.";
  }
}

Result<void> checked(cudaError_t error, const std::string& call, const std::string& what) {
  if (error == cudaSuccess) return {};
  const bool memory = error == cudaErrorMemoryAllocation;
  if (memory) cudaGetLastError();  // not sticky
  return fail(memory ? ErrorCode::kMemory : ErrorCode::kDevice,
              call + " failed: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ").", what,
              hint_of(error));
}

// The first launch that failed, if any.
Result<void> launched(const Stream& stream, const std::string& what) {
  if (stream.error == 0) return {};
  const std::string layer = stream.failed_layer < 0 ? "" : " of layer " + std::to_string(stream.failed_layer);
  return checked(cudaError_t(stream.error), std::string("the launch of kernel ") + stream.failed + layer, what);
}

cudaStream_t native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native);
}

class CapturedGraph final : public Graph {
 public:
  explicit CapturedGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CapturedGraph() override { cudaGraphExecDestroy(graph_); }
  Result<void> launch(Stream& stream) override {
    return checked(cudaGraphLaunch(graph_, native(stream)), "cudaGraphLaunch", "a token");
  }

 private:
  cudaGraphExec_t graph_;
};

class LoadedKernel final : public CompiledKernel {
 public:
  LoadedKernel(cudaLibrary_t library, cudaKernel_t kernel, std::string name)
      : library_(library), kernel_(kernel), name_(std::move(name)) {}
  ~LoadedKernel() override { cudaLibraryUnload(library_); }
  void launch(Stream& stream, unsigned blocks, unsigned threads, void* argument) override {
    void* arguments[] = {argument};
    const cudaError_t error = cudaLaunchKernel(reinterpret_cast<const void*>(kernel_), dim3(blocks), dim3(threads),
                                               arguments, 0, native(stream));
    if (error == cudaSuccess || stream.error != 0) return;
    stream.error = error, stream.failed = name_.c_str(), stream.failed_layer = stream.layer;
  }

 private:
  cudaLibrary_t library_;
  cudaKernel_t kernel_;
  std::string name_;
};

}  // namespace

Result<DeviceInfo> open_device() {
  int count = 0;
  SY_CHECK(checked(cudaGetDeviceCount(&count), "cudaGetDeviceCount", "--backend cuda"));
  if (count == 0)
    return fail(ErrorCode::kDevice, "there is no CUDA device.", "--backend cuda", hint_of(cudaErrorNoDevice));
  SY_CHECK(use_device());
  cudaDeviceProp properties{};
  SY_CHECK(checked(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties", "device 0"));
  if (properties.major < 8)
    return fail(ErrorCode::kDevice,
                std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." +
                    std::to_string(properties.minor) + ", needed is 8.0.",
                "--backend cuda", "Use --backend cpu.");
  SY_TRY(const uint64_t free, free_memory());
  return DeviceInfo{properties.name,           properties.major,
                    properties.minor,          properties.multiProcessorCount,
                    properties.totalGlobalMem, free};
}

Result<uint64_t> free_memory() {
  size_t free = 0, total = 0;
  SY_CHECK(checked(cudaMemGetInfo(&free, &total), "cudaMemGetInfo", "device 0"));
  return uint64_t(free);
}

Result<void> use_device() {
  return checked(cudaSetDevice(0), "cudaSetDevice", "device 0");
}

Buffer::~Buffer() {
  if (!data_) return;
  place_ == Place::kDevice ? cudaFree(data_) : cudaFreeHost(data_);
}

Result<Buffer> Buffer::make(size_t bytes, Place place, const std::string& what) {
  Buffer out;
  out.place_ = place;
  const bool device = place == Place::kDevice;
  SY_CHECK(checked(device ? cudaMalloc(&out.data_, bytes) : cudaHostAlloc(&out.data_, bytes, cudaHostAllocMapped),
                   (device ? "cudaMalloc of " : "cudaHostAlloc of ") + std::to_string(bytes) + " bytes", what));
  out.bytes_ = bytes;
  return out;
}

Result<Stream> make_stream(const DeviceInfo& device) {
  cudaStream_t made = nullptr;
  SY_CHECK(checked(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags", device.name));
  Stream stream;
  stream.native = made;
  stream.processors = device.processors;
  stream.early_start = device.major >= 9 && std::getenv("SWITCHYARD_CUDA_EARLY_START") != nullptr;
  return stream;
}

void close_stream(Stream& stream) {
  if (stream.native) cudaStreamDestroy(native(stream));
  stream = {};
}

Result<void> copy(Stream& stream, void* to, const void* from, size_t bytes, const char* what) {
  return checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)),
                 "cudaMemcpyAsync of " + std::to_string(bytes) + " bytes", what);
}

Result<void> clear(Stream& stream, void* to, size_t bytes, const char* what) {
  return checked(cudaMemsetAsync(to, 0, bytes, native(stream)),
                 "cudaMemsetAsync of " + std::to_string(bytes) + " bytes", what);
}

Result<void> wait(Stream& stream, const std::string& what) {
  SY_CHECK(launched(stream, what));
  return checked(cudaStreamSynchronize(native(stream)), "cudaStreamSynchronize", what);
}

Result<std::unique_ptr<Graph>> capture(Stream& stream, const std::function<void(Stream&)>& launches) {
  SY_CHECK(checked(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture",
                   "a token"));
  launches(stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(native(stream), &graph);
  SY_CHECK(launched(stream, "a token"));
  SY_CHECK(checked(ended, "cudaStreamEndCapture", "a token"));
  cudaGraphExec_t ready = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&ready, graph, 0);
  cudaGraphDestroy(graph);
  SY_CHECK(checked(made, "cudaGraphInstantiate", "a token"));
  return std::make_unique<CapturedGraph>(ready);
}

Result<std::unique_ptr<CompiledKernel>> compile_kernel(const KernelText& text, const char* name) {
  cudaDeviceProp properties{};
  SY_CHECK(checked(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties", "device 0"));
  SY_TRY(const std::string image,
         compile(text, "sm_" + std::to_string(properties.major) + std::to_string(properties.minor)));
  cudaLibrary_t library = nullptr;
  SY_CHECK(checked(cudaLibraryLoadData(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
                   "cudaLibraryLoadData", text.name));
  cudaKernel_t kernel = nullptr;
  if (const cudaError_t error = cudaLibraryGetKernel(&kernel, library, name); error != cudaSuccess) {
    cudaLibraryUnload(library);
    return tl::unexpected(checked(error, "cudaLibraryGetKernel", text.name).error());
  }
  return std::make_unique<LoadedKernel>(library, kernel, text.name);
}

}  // namespace switchyard::cuda

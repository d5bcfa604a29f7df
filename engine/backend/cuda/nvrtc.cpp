// See nvrtc.h. The functions are declared here as CUDA's manual does (NVRTC, "Compilation"), so that no header of a
// toolkit is needed.
#include "engine/backend/cuda/nvrtc.h"

#include <dlfcn.h>

#include <cstdlib>
#include <optional>

#include "engine/base/text.h"

namespace switchyard::cuda {
namespace {

using Program = void*;
struct Nvrtc {
  const char* (*error_text)(int);
  int (*create)(Program*, const char* text, const char* name, int headers, const char* const* header_texts,
                const char* const* header_names);
  int (*compile)(Program, int options, const char* const* option_texts);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*cubin_size)(Program, size_t*);
  int (*cubin)(Program, char*);
  int (*ptx_size)(Program, size_t*);
  int (*ptx)(Program, char*);
  int (*destroy)(Program*);
};

template <class F>
bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

std::optional<Nvrtc> open_nvrtc() {
  const char* const set = std::getenv("SWITCHYARD_NVRTC_LIB");
  void* library = nullptr;
  for (const char* const name : {set ? set : "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library || set) break;
  }
  Nvrtc out{};
  if (library && find(library, "nvrtcGetErrorString", out.error_text) &&
      find(library, "nvrtcCreateProgram", out.create) && find(library, "nvrtcCompileProgram", out.compile) &&
      find(library, "nvrtcGetProgramLogSize", out.log_size) && find(library, "nvrtcGetProgramLog", out.log) &&
      find(library, "nvrtcGetCUBINSize", out.cubin_size) && find(library, "nvrtcGetCUBIN", out.cubin) &&
      find(library, "nvrtcGetPTXSize", out.ptx_size) && find(library, "nvrtcGetPTX", out.ptx) &&
      find(library, "nvrtcDestroyProgram", out.destroy))
    return out;
  return std::nullopt;
}

template <class Size, class Get>
std::string text_of(Program program, Size size, Get get) {
  size_t bytes = 0;
  if (size(program, &bytes) != 0) return {};
  std::string out(bytes, '\0');
  return get(program, out.data()) == 0 ? out : std::string();
}

}  // namespace

Result<std::string> compile(const KernelText& text, const std::string& architecture) {
  static const std::optional<Nvrtc> nvrtc = open_nvrtc();
  if (!nvrtc)
    return fail(ErrorCode::kNotFound, "NVRTC (libnvrtc.so.13, of the CUDA toolkit) is not there.", text.name,
                "Install it, or name the file in SWITCHYARD_NVRTC_LIB.");
  std::vector<const char*> names, texts;
  for (const auto& [name, header] : text.headers) names.push_back(name.c_str()), texts.push_back(header.c_str());
  Program program = nullptr;
  if (const int error =
          nvrtc->create(&program, text.text.c_str(), text.name.c_str(), int(names.size()), texts.data(), names.data());
      error != 0)
    return fail(ErrorCode::kInternal, std::string("nvrtcCreateProgram failed: ") + nvrtc->error_text(error) + ".",
                text.name);
  // No fused multiply-add and no approximation: the numbers are those of the host's compiler.
  const std::string target = "--gpu-architecture=" + architecture;
  const char* const options[] = {target.c_str(),    "--std=c++17",      "--fmad=false",
                                 "--prec-div=true", "--prec-sqrt=true", "--ftz=false"};
  const int error = nvrtc->compile(program, int(std::size(options)), options);
  std::string out;
  if (error != 0)
    out = text_of(program, nvrtc->log_size, nvrtc->log);
  else if (architecture.starts_with("sm_"))
    out = text_of(program, nvrtc->cubin_size, nvrtc->cubin);
  else
    out = text_of(program, nvrtc->ptx_size, nvrtc->ptx);
  nvrtc->destroy(&program);
  if (error != 0)
    return fail(ErrorCode::kMalformed,
                std::string("does not compile for the device: ") + nvrtc->error_text(error) + "\n" +
                    out.substr(0, 4000).c_str(),
                text.name);
  if (out.empty()) return fail(ErrorCode::kInternal, "NVRTC gave nothing for " + architecture + ".", text.name);
  return out;
}

}  // namespace switchyard::cuda

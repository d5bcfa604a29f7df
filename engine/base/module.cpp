// See module.h.
#include "engine/base/module.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace switchyard {
namespace {

std::vector<std::filesystem::path> places_of(const ModuleName& name) {
  if (const char* chosen = std::getenv(name.variable); chosen && *chosen) return {chosen};
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {program / name.file, program.parent_path() / "lib" / name.file, program.parent_path() / "lib" / "switchyard" / name.file};
}

}  // namespace

Result<std::filesystem::path> find_module(const ModuleName& name) {
  std::string tried;
  for (const auto& path : places_of(name)) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
    tried += (tried.empty() ? "" : ", ") + path.string();
  }
  return fail(ErrorCode::kNotFound, std::string(name.what) + " is not there; tried " + tried + ".", name.file, name.hint);
}

Result<void*> load_module(const ModuleName& name) {
  SY_TRY(const std::filesystem::path path, find_module(name));
  void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!module) return fail(ErrorCode::kNotFound, std::string(name.what) + " cannot be loaded: " + dlerror() + ".", path, name.hint);
  void* const entry = dlsym(module, name.symbol);
  if (!entry) return fail(ErrorCode::kNotFound, std::string("has no symbol ") + name.symbol + ".", path, name.hint);
  return entry;
}

}  // namespace switchyard

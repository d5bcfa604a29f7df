// Parts of the program that are loaded when they are first needed, because they carry a large library. Any thread.
#pragma once

#include <filesystem>

#include "engine/base/result.h"

namespace switchyard {

struct ModuleName {
  const char* file;      // "libswitchyard_reference.so": beside the program, in ../lib (build tree) or ../lib/switchyard (installed)
  const char* variable;  // of the environment: a path that is taken instead
  const char* symbol;    // its entry, extern "C"
  const char* what;      // in words, for errors
  const char* hint;
};

// Where it is, without loading it. kNotFound: says the places that were looked at.
Result<std::filesystem::path> find_module(const ModuleName& name);

// The address of its entry. Never unloaded: what such libraries register outlives any one use. kNotFound.
Result<void*> load_module(const ModuleName& name);

}  // namespace switchyard

// Which backends this program has, and why not. Any thread; loads nothing.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct BackendState {
  std::string name;    // "cpu", of --backend
  bool present;        // as far as can be told without loading it
  std::string detail;  // "AVX-512, own kernels"; or what is missing and the next step
};

std::vector<BackendState> backend_states();

}  // namespace switchyard

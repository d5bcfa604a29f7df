// States of recurrent routers on their way through the layers, of tokens that run together (DecisionSpans::state).
// A backend holds one for a forward pass. Written by one thread; states of different tokens by several.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/routing/scheme.h"

namespace switchyard {

class RouterStates {
 public:
  // Before the first layer.
  void begin() { width_ = 0; }
  // Before a layer under a scheme with has_state(): the state of the layer before that ran one of the same file, else
  // zeros.
  void prepare(const Scheme& scheme, size_t tokens);
  // [p]
  std::span<float> of(size_t token) { return std::span(values_).subspan(token * width_, width_); }

 private:
  std::string file_;  // whose states these are: a file, or a scheme with code
  size_t width_ = 0;
  std::vector<float> values_;  // [tokens, p]
};

}  // namespace switchyard

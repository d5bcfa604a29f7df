// See router_states.h.
#include "engine/routing/router_states.h"

namespace switchyard {

void RouterStates::prepare(const Scheme& scheme, size_t tokens) {
  const auto width = size_t(state_width(scheme));
  const std::string& owner = scheme.code ? scheme.choice.name : scheme.file_name();
  if (owner == file_ && width == width_) return;
  file_ = owner;
  width_ = width;
  values_.assign(tokens * width, 0.0f);
}

}  // namespace switchyard

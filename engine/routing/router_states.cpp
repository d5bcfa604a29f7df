// See router_states.h.
#include "engine/routing/router_states.h"

namespace switchyard {

void RouterStates::prepare(const Scheme& scheme, size_t tokens) {
  const auto width = size_t(scheme.file->gru.width());
  if (scheme.file_name() == file_ && width == width_) return;
  file_ = scheme.file_name();
  width_ = width;
  values_.assign(tokens * width, 0.0f);
}

}  // namespace switchyard

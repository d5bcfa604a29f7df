#include "views/view.h"

#include <algorithm>

namespace switchyard {

uint64_t RunData::shown_index(const TimeCursor& cursor) const {
  if (frames.empty()) return 0;
  return std::min<uint64_t>(cursor.value_or(frames.size() - 1), frames.size() - 1);
}

const RoutingFrame* RunData::shown(const TimeCursor& cursor) const {
  return frames.empty() ? nullptr : frames[shown_index(cursor)].get();
}

}  // namespace switchyard

// The frames of one sequence, kept in memory for the eyes: one writer (engine thread), many readers.
// Published frames are immutable. When the byte budget is spent the oldest are let go and counted;
// the trace keeps them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/routing/frame.h"

namespace switchyard {

class FrameLog {
 public:
  explicit FrameLog(size_t byte_budget = size_t(512) << 20);

  void append(RoutingFrame frame);  // engine thread

  // The first `frames` of them, shared with this log.
  std::shared_ptr<FrameLog> prefix(uint64_t frames) const;

  size_t bytes() const;         // of the frames held
  uint64_t size() const;        // frames ever appended
  uint64_t first_kept() const;  // index of the oldest still held
  std::shared_ptr<const RoutingFrame> at(uint64_t index) const;  // nullptr: let go or not there yet
  // Frames [from, to), clipped to what is held; one lock for the whole range.
  std::vector<std::shared_ptr<const RoutingFrame>> range(uint64_t from, uint64_t to) const;

 private:
  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<const RoutingFrame>> frames_;
  uint64_t first_ = 0;
  size_t bytes_ = 0;
  size_t budget_;
};

}  // namespace switchyard

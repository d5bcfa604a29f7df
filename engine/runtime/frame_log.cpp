#include "engine/runtime/frame_log.h"

#include <algorithm>

namespace switchyard {

FrameLog::FrameLog(size_t byte_budget) : budget_(byte_budget) {}

void FrameLog::append(RoutingFrame frame) {
  auto shared = std::make_shared<const RoutingFrame>(std::move(frame));
  std::vector<std::shared_ptr<const RoutingFrame>> let_go;  // freed outside the lock
  const std::scoped_lock lock(mutex_);
  bytes_ += shared->memory_bytes();
  frames_.push_back(std::move(shared));
  while (bytes_ > budget_ && frames_.size() > 1) {
    bytes_ -= frames_.front()->memory_bytes();
    let_go.push_back(std::move(frames_.front()));
    frames_.pop_front();
    ++first_;
  }
}

std::shared_ptr<FrameLog> FrameLog::prefix(uint64_t frames) const {
  auto out = std::make_shared<FrameLog>(budget_);
  const std::scoped_lock lock(mutex_);
  out->first_ = std::min(first_, frames);
  for (uint64_t i = first_; i < std::min(frames, first_ + frames_.size()); ++i) {
    out->frames_.push_back(frames_[i - first_]);
    out->bytes_ += frames_[i - first_]->memory_bytes();
  }
  return out;
}

size_t FrameLog::bytes() const {
  const std::scoped_lock lock(mutex_);
  return bytes_;
}

uint64_t FrameLog::size() const {
  const std::scoped_lock lock(mutex_);
  return first_ + frames_.size();
}

uint64_t FrameLog::first_kept() const {
  const std::scoped_lock lock(mutex_);
  return first_;
}

std::shared_ptr<const RoutingFrame> FrameLog::at(uint64_t index) const {
  const std::scoped_lock lock(mutex_);
  if (index < first_ || index >= first_ + frames_.size()) return nullptr;
  return frames_[index - first_];
}

std::vector<std::shared_ptr<const RoutingFrame>> FrameLog::range(uint64_t from, uint64_t to) const {
  const std::scoped_lock lock(mutex_);
  from = std::max(from, first_);
  to = std::min(to, first_ + frames_.size());
  if (from >= to) return {};
  return {frames_.begin() + (from - first_), frames_.begin() + (to - first_)};
}

}  // namespace switchyard

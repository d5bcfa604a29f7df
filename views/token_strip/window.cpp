#include "views/token_strip/window.h"

#include <algorithm>

namespace switchyard {

void TokenWindow::clamp() {
  first_ = std::clamp(first_, 0.0, std::max(0.0, tokens_ - span_));
}

void TokenWindow::update(uint64_t tokens, double room, bool follow) {
  const bool at_end = last() >= tokens_ - 0.5;
  tokens_ = double(tokens);
  room_ = std::max(1.0, room);
  span_ = std::max(1.0, std::min(tokens_, wanted_ > 0 ? wanted_ : room_));
  if (follow && at_end) first_ = tokens_ - span_;
  clamp();
}

void TokenWindow::zoom(double factor, double about) {
  const double before = span_, all = std::max(1.0, tokens_);
  span_ = std::clamp(span_ * factor, std::min(8.0, all), all);
  first_ = about - (about - first_) * span_ / before;
  wanted_ = span_ >= all && all <= room_ ? 0 : span_;
  clamp();
}

void TokenWindow::pan(double tokens) {
  first_ += tokens;
  clamp();
}

void TokenWindow::reveal(uint64_t token) {
  first_ = std::clamp(first_, double(token) + 1 - span_, double(token));
  clamp();
}

}  // namespace switchyard

// How long the composed frames of the window take: one update of the top-level window is every visible panel's build
// and paint, Qt's own widgets, their composition and the hand-over to the display. GUI thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace switchyard {

class FrameTimes {
 public:
  void clear() { ms_.clear(); }
  void add(double ms) { ms_.push_back(float(ms)); }
  size_t count() const { return ms_.size(); }

  // The smallest time that `part` (0..1) of the frames do not exceed, milliseconds; 0 without frames.
  double percentile(double part) const {
    if (ms_.empty()) return 0;
    std::vector<float> sorted = ms_;
    const size_t rank = size_t(std::ceil(std::clamp(part, 0.0, 1.0) * double(sorted.size())));
    const auto at = sorted.begin() + ptrdiff_t(rank > 0 ? rank - 1 : 0);
    std::nth_element(sorted.begin(), at, sorted.end());
    return *at;
  }

 private:
  std::vector<float> ms_;
};

}  // namespace switchyard

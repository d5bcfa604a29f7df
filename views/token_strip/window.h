// Which tokens the strip shows: all that fit, or a zoomed range that follows the live end. Pure.
#pragma once

#include <cstdint>

namespace switchyard {

class TokenWindow {
 public:
  // Call each repaint: tokens there are, and how many cells the strip has room for.
  void update(uint64_t tokens, double room, bool follow);
  double first() const { return first_; }
  double span() const { return span_; }  // tokens shown; at least 1
  double last() const { return first_ + span_; }

  void zoom(double factor, double about);  // factor < 1: closer; about: a token
  void pan(double tokens);
  void reveal(uint64_t token);  // scrolls the least that shows it
  bool zoomed() const { return wanted_ > 0; }

 private:
  void clamp();
  double first_ = 0, span_ = 1;
  double wanted_ = 0;  // span chosen by hand; 0: as many as fit
  double tokens_ = 0, room_ = 1;
};

}  // namespace switchyard

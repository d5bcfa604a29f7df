// Speeds of one sequence, as the status bar shows them. Engine thread only.
#pragma once

#include <cstdint>
#include <deque>

namespace switchyard {

class RunMeter {
 public:
  // seconds: wall time of the work; capture: the part of it spent on frames, log and record.
  void prefill(uint64_t tokens, double seconds, double capture);
  void decode(double seconds, double capture);

  double prefill_rate() const;      // tokens per second
  double decode_rate() const;       // over the last second of generation; a pause does not count
  double mean_decode_rate() const;
  double capture_cost() const;      // share of the token time, 0..1, over the last second of generation, else of prefill

 private:
  struct Token {
    double seconds, capture;
  };
  std::deque<Token> last_second_;
  double last_seconds_ = 0, last_capture_ = 0;
  double prefill_seconds_ = 0, prefill_capture_ = 0, decode_seconds_ = 0;
  uint64_t prefill_tokens_ = 0, decode_tokens_ = 0;
};

}  // namespace switchyard

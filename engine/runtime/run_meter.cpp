#include "engine/runtime/run_meter.h"

namespace switchyard {
namespace {

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

}  // namespace

void RunMeter::prefill(uint64_t tokens, double seconds, double capture) {
  prefill_tokens_ += tokens;
  prefill_seconds_ += seconds;
  prefill_capture_ += capture;
}

void RunMeter::decode(double seconds, double capture) {
  ++decode_tokens_;
  decode_seconds_ += seconds;
  last_second_.push_back({seconds, capture});
  last_seconds_ += seconds;
  last_capture_ += capture;
  while (last_second_.size() > 1 && last_seconds_ - last_second_.front().seconds >= 1.0) {
    last_seconds_ -= last_second_.front().seconds;
    last_capture_ -= last_second_.front().capture;
    last_second_.pop_front();
  }
}

double RunMeter::prefill_rate() const { return ratio(double(prefill_tokens_), prefill_seconds_); }
double RunMeter::decode_rate() const { return ratio(double(last_second_.size()), last_seconds_); }
double RunMeter::mean_decode_rate() const { return ratio(double(decode_tokens_), decode_seconds_); }
double RunMeter::capture_cost() const {
  return last_second_.empty() ? ratio(prefill_capture_, prefill_seconds_) : ratio(last_capture_, last_seconds_);
}

}  // namespace switchyard

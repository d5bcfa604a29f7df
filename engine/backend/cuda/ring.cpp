// See ring.h.
#include "engine/backend/cuda/ring.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace switchyard::cuda {
namespace {

constexpr size_t kStaging = size_t(4) << 20;

uint64_t load_acquire(const uint64_t* at) {
  return std::atomic_ref<const uint64_t>(*at).load(std::memory_order_acquire);
}

}  // namespace

Result<std::unique_ptr<CaptureRing>> CaptureRing::make(const DeviceInfo& device, int tokens, const RecordLayout& layout,
                                                       std::vector<int> experts) {
  std::unique_ptr<CaptureRing> ring(new CaptureRing);
  ring->tokens_ = tokens, ring->layout_ = layout, ring->experts_ = std::move(experts);
  SY_TRY(ring->records_,
         Buffer::make(size_t(tokens) * layout.token_bytes(), Place::kDevice, "the ring of routing records"));
  SY_TRY(ring->done_, Buffer::make(sizeof(uint64_t), Place::kPinned, "the ring of routing records"));
  *ring->done_.as<uint64_t>() = 0;
  ring->batch_ = std::max(1, std::min(tokens, int(kStaging / layout.token_bytes())));
  for (Buffer& staging : ring->staging_) {
    SY_TRY(staging,
           Buffer::make(size_t(ring->batch_) * layout.token_bytes(), Place::kPinned, "the ring of routing records"));
  }
  SY_TRY(ring->side_, make_stream(device));
  ring->thread_ = std::thread([raw = ring.get()] { raw->drain(); });
  return ring;
}

CaptureRing::~CaptureRing() {
  {
    const std::scoped_lock lock(mutex_);
    stops_ = true;
  }
  work_.notify_one();
  if (thread_.joinable()) thread_.join();
  close_stream(side_);
}

void CaptureRing::expect(std::span<RoutingFrame> frames, const std::vector<uint8_t>& without) {
  {
    const std::scoped_lock lock(mutex_);
    expected_.push_back({next_, frames, without});
    next_ += frames.size();
    wanted_ = next_;
  }
  work_.notify_one();
}

Result<void> CaptureRing::finish() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return drained_ == wanted_ || !result_; });
  expected_.clear();
  if (!result_) drained_ = wanted_;
  return std::exchange(result_, {});
}

void CaptureRing::abandon() {
  const std::scoped_lock lock(mutex_);
  drained_ = wanted_;
  expected_.clear();
  *done_.as<uint64_t>() = wanted_;
}

void CaptureRing::drain() {
  using std::chrono::microseconds;
  constexpr microseconds kShortest(20), kLongest(500);
  Result<void> ready = use_device();
  std::unique_lock lock(mutex_);
  for (microseconds pause = kShortest;;) {
    work_.wait(lock, [&] { return stops_ || drained_ < wanted_; });
    if (stops_) return;
    const uint64_t first = drained_, done = std::min(load_acquire(done_.as<uint64_t>()), wanted_);
    if (done <= first) {  // not yet
      lock.unlock();
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongest);
      lock.lock();
      continue;
    }
    pause = kShortest;
    // Up to the end of the ring, or of a staging buffer.
    const uint64_t count = std::min({done - first, uint64_t(batch_), uint64_t(tokens_) - first % uint64_t(tokens_)});
    Result<void> taken = ready ? take(first, count) : ready;
    if (drained_ == first) drained_ = first + count;  // else the records were abandoned
    if (!taken) result_ = std::move(taken);
    idle_.notify_all();
  }
}

// Called with the lock held: frames are the engine thread's as soon as it is not waiting.
Result<void> CaptureRing::take(uint64_t first, uint64_t count) {
  const size_t bytes = layout_.token_bytes();
  turn_ = 1 - turn_;
  unsigned char* const staging = staging_[turn_].as<>();
  SY_CHECK(copy(side_, staging, records_.as<>() + size_t(first % uint64_t(tokens_)) * bytes, size_t(count) * bytes,
                "routing records"));
  SY_CHECK(wait(side_, "routing records"));
  for (uint64_t number = first; number < first + count; ++number) {
    for (auto& [begin, frames, without] : expected_) {
      if (number < begin || number >= begin + frames.size()) continue;
      RoutingFrame& frame = frames[size_t(number - begin)];
      for (int row = 0; row < layout_.rows; ++row) {
        if (!without.empty() && without[size_t(row)]) continue;
        const Recorded record(layout_, staging + size_t(number - first) * bytes, row);
        if (record.head().written != uint32_t(number) + 1)
          return fail(ErrorCode::kInternal, "the record of a token is that of another one.",
                      "routing records of row " + std::to_string(row));
        record.write(frame, row, experts_[size_t(row)]);
      }
    }
  }
  return {};
}

}  // namespace switchyard::cuda

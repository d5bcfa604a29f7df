// The ring of records and the thread that empties it: kernels write a token's record to the device, the last one tells
// a pinned word, and the drain copies what is whole on a stream of its own and fills the frames, while the next tokens
// run. expect() and finish() are the engine thread's; it never launches more tokens than the ring has room for.
#pragma once

#include <condition_variable>
#include <mutex>
#include <span>
#include <thread>

#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/records.h"

namespace switchyard::cuda {

class CaptureRing {
 public:
  // experts: of each row's router.
  static Result<std::unique_ptr<CaptureRing>> make(const DeviceInfo& device, int tokens, const RecordLayout& layout,
                                                   std::vector<int> experts);
  ~CaptureRing();

  Ring place() const { return {records_.as<>(), uint32_t(tokens_), layout_}; }
  uint64_t* done_word() const { return done_.as<uint64_t>(); }
  uint64_t next() const { return next_; }  // number of the next token's record
  int tokens() const { return tokens_; }
  const RecordLayout& layout() const { return layout_; }

  // The next frames.size() records are these frames'. Frames stay alive until finish(). without: [rows], 1 where the device
  // writes no record; empty: it writes all.
  void expect(std::span<RoutingFrame> frames, const std::vector<uint8_t>& without = {});
  // Until all frames are filled; error: of the device.
  Result<void> finish();
  // After an error: what was expected will not come.
  void abandon();

 private:
  CaptureRing() = default;
  void drain();
  Result<void> take(uint64_t first, uint64_t count);

  int tokens_ = 0;
  RecordLayout layout_;
  std::vector<int> experts_;
  Buffer records_, done_, staging_[2];
  int batch_ = 1, turn_ = 0;  // tokens of a staging buffer
  Stream side_;
  uint64_t next_ = 0;  // engine thread

  std::mutex mutex_;
  std::condition_variable work_, idle_;
  struct Expected {
    uint64_t begin;  // number of the first
    std::span<RoutingFrame> frames;
    std::vector<uint8_t> without;
  };
  std::vector<Expected> expected_;
  uint64_t drained_ = 0, wanted_ = 0;
  Result<void> result_;
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace switchyard::cuda

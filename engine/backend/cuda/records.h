// The record of a token as the ring holds it: its layout by level of capture, and reading one. Plain memory; any
// thread.
#pragma once

#include <cstdint>
#include <span>

#include "engine/backend/cuda/tables.h"
#include "engine/routing/frame.h"

namespace switchyard::cuda {

// rows: routers; slots: of a decision, null slots included.
RecordLayout record_layout(int rows, int experts, int slots, CaptureLevel level);

// One row of a token's record.
class Recorded {
 public:
  Recorded(const RecordLayout& layout, const unsigned char* token, int row)
      : layout_(layout), at_(token + size_t(row) * layout.row_bytes) {}

  const RecordHead& head() const { return *reinterpret_cast<const RecordHead*>(at_); }
  // Empty where they are not captured; else [used slots], in order of selection.
  std::span<const ExpertId> ids() const { return part<ExpertId>(layout_.ids, used()); }
  std::span<const float> weights() const { return part<float>(layout_.weights, used()); }
  std::span<const SlotKind> kinds() const { return part<SlotKind>(layout_.kinds, used()); }
  std::span<const float> logits(int experts) const { return part<float>(layout_.logits, size_t(experts)); }

  // Into the frame; the router has so many experts.
  void write(RoutingFrame& frame, int row, int experts) const;

 private:
  size_t used() const { return size_t(head().k_used) + head().nulls; }
  template <class T>
  std::span<const T> part(uint32_t offset, size_t count) const {
    return offset ? std::span<const T>(reinterpret_cast<const T*>(at_ + offset), count) : std::span<const T>();
  }
  const RecordLayout& layout_;
  const unsigned char* at_;
};

}  // namespace switchyard::cuda

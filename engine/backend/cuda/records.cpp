// See records.h.
#include "engine/backend/cuda/records.h"

#include <utility>

namespace switchyard::cuda {

RecordLayout record_layout(int rows, int experts, int slots, CaptureLevel level) {
  RecordLayout out{.rows = rows, .experts = experts, .slots = slots};
  uint32_t end = sizeof(RecordHead);
  const auto place = [&](size_t bytes) {
    end = (end + 15) / 16 * 16;
    return std::exchange(end, end + uint32_t(bytes));
  };
  if (level >= CaptureLevel::kIds) {  // frames sort their slots by weight, so these come along
    out.ids = place(size_t(slots) * sizeof(ExpertId));
    out.kinds = place(size_t(slots) * sizeof(SlotKind));
    out.weights = place(size_t(slots) * sizeof(float));
  }
  if (level >= CaptureLevel::kLogits) out.logits = place(size_t(experts) * sizeof(float));
  out.row_bytes = (end + 15) / 16 * 16;
  return out;
}

void Recorded::write(RoutingFrame& frame, int row, int experts) const {
  Decision decision{.k_used = head().k_used,
                    .nulls = head().nulls,
                    .had_nan = head().had_nan != 0,
                    .changed = head().changed,
                    .stats = head().stats};
  frame.record(row, decision, ids(), weights(), kinds(), logits(experts));
}

}  // namespace switchyard::cuda

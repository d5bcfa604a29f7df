// See host_records.h.
#include "engine/backend/cuda/host_records.h"

#include "engine/routing/slices.h"

namespace switchyard::cuda {

void HostRecords::add(int row, const HostGate& gate, std::span<const float> logits) {
  const size_t experts = logits.size() / gate.decisions().size();
  const auto copy = [](auto values) { return std::vector(values.begin(), values.end()); };
  for (size_t token = 0; token < gate.decisions().size(); ++token)
    decisions_.push_back({token, row, gate.decisions()[token], copy(gate.ids(token)), copy(gate.weights(token)),
                          copy(gate.kinds(token)), copy(logits.subspan(token * experts, experts))});
}

void HostRecords::add(int row, std::span<const float> logits, std::span<const uint8_t> slices_on, int slices) {
  const auto width = size_t(slices);
  for (size_t token = 0; token < logits.size() / width; ++token) {
    const auto own = logits.subspan(token * width, width);
    Recorded& out = decisions_.emplace_back();
    out.token = token, out.row = row;
    out.ids.resize(width), out.weights.resize(width), out.kinds.resize(width);
    out.decision = slice_decision(own, slices_on.subspan(token * width, width), {out.ids, out.weights, out.kinds});
    out.logits.assign(own.begin(), own.end());
  }
}

void HostRecords::write(std::span<RoutingFrame> frames) const {
  if (frames.empty()) return;
  for (const Recorded& r : decisions_) frames[r.token].record(r.row, r.decision, r.ids, r.weights, r.kinds, r.logits);
  for (const Measured& m : norms_) frames[m.token].note_out_norm(m.row, m.expert, m.value);
  for (const Measured& m : cosines_) frames[m.token].note_block_cos(m.row, m.value);
}

}  // namespace switchyard::cuda

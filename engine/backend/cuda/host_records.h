// Decisions and measurements of the host for the frames of a step. Engine thread.
#pragma once

#include <vector>

#include "engine/backend/cuda/host_gate.h"
#include "engine/routing/frame.h"

namespace switchyard::cuda {

// What the host writes to frames once the drain, which writes to the same frames, has done its part.
class HostRecords {
 public:
  void clear() { decisions_.clear(), norms_.clear(), cosines_.clear(); }
  // logits: [tokens, E]
  void add(int row, const HostGate& gate, std::span<const float> logits);
  void add(int row, std::span<const float> logits, std::span<const uint8_t> slices_on, int slices);
  void add_norm(size_t token, int row, ExpertId expert, float norm) { norms_.push_back({token, row, expert, norm}); }
  void add_cosine(size_t token, int row, float cosine) { cosines_.push_back({token, row, 0, cosine}); }
  void write(std::span<RoutingFrame> frames) const;

 private:
  struct Recorded {
    size_t token;
    int row;
    Decision decision;
    std::vector<ExpertId> ids;
    std::vector<float> weights;
    std::vector<SlotKind> kinds;
    std::vector<float> logits;
  };
  struct Measured {
    size_t token;
    int row;
    ExpertId expert;
    float value;
  };
  std::vector<Recorded> decisions_;
  std::vector<Measured> norms_, cosines_;
};

}  // namespace switchyard::cuda

// Where every frame goes on record. Implemented by the HDF5 recorder; a test may count.
// Calls come from the engine thread, in token order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/routing/frame.h"

namespace switchyard {

// Where a sequence comes from: an earlier sequence of the same record, whose tokens before `offset` it shares, or a text.
struct SequenceOrigin {
  int64_t parent = -1;   // place of that sequence in the record, from 0; -1: none
  uint32_t offset = 0;   // index of this sequence's first token
  uint16_t domain = 0;   // index into TraceHeader::domains, where the record has domains
  uint64_t source_id = 0;
};

class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual Result<void> begin_sequence(uint32_t sequence, uint32_t prompt_tokens, SequenceOrigin origin) = 0;
  Result<void> begin_sequence(uint32_t sequence, uint32_t prompt_tokens) { return begin_sequence(sequence, prompt_tokens, {}); }
  // The rows that frames have from the next epoch on, in the order of execution; called before begin_epoch(). A sink
  // that cannot add rows goes on elsewhere, see TraceRecorder.
  virtual Result<void> need_rows(std::vector<DecisionRow>) { return {}; }
  // Edits in force from `first_token` (row of the trace's token axis is counted by the sink) on, as the
  // JSON of an edit script; called before the first frame of that epoch.
  virtual Result<void> begin_epoch(uint32_t epoch, uint64_t first_token, const std::string& edits_json) = 0;
  // Blocks while the ring is full (record mode).
  virtual Result<void> append(const RoutingFrame& frame) = 0;
  // Writes everything, closes cleanly; the sink takes nothing afterwards. Idempotent.
  virtual Result<void> close() = 0;
  virtual uint64_t dropped() const = 0;
};

}  // namespace switchyard

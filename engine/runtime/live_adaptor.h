// Adaptation while a model runs: when a step is due, what it works on, its log, and the way back. The steps themselves:
// adapt.h. A step is a function of the tokens, the recipe in force and the plan, and is taken at fixed tokens, so that a
// run repeats from its seed, a rewind takes the same steps again, and the history is the whole result. Engine thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/runtime/adapt.h"
#include "engine/runtime/shared_list.h"

namespace switchyard {

// What to do and how far it may go.
struct AdaptationPlan {
  AdaptOptions options;  // of each step: n iterations, layers, largest norm
  int every = 128;       // m: tokens between two steps
  int max_steps = 8;     // of a sequence
  bool keep = false;     // what was found holds for the next sequence too; else it begins as before the adaptation
  bool operator==(const AdaptationPlan&) const = default;
};
Result<void> validate(const AdaptationPlan& plan, const ModelPlan& model);

// One step, as the log keeps it.
struct AdaptationEntry {
  int number = 0;          // in its sequence, from 1
  uint32_t sequence = 0, branch = 0;
  uint64_t token = 0;      // index of the first token routed under it
  uint64_t context = 0;    // tokens that it worked on
  double loss_before = 0, loss_after = 0;  // nats per token over the context
  double rerouted = 0, path_distance = 0;  // of the result, against the recipe before the adaptation (AdaptStep)
  std::vector<double> norms;               // [routing rows] of the result
  std::vector<AdaptStep> iterations;
  size_t edits = 0;
  double seconds = 0;
};

// What snapshots show of it.
struct AdaptationState {
  enum class Phase : uint8_t { kActive, kFrozen, kReverted, kFailed };
  AdaptationPlan plan;
  Phase phase = Phase::kActive;
  std::string reason;                   // of kFailed, a sentence
  bool stepping = false;                // a step is being computed
  std::vector<AdaptStep> iterations;    // of that step, so far
  SharedList<AdaptationEntry> log;      // oldest first, of all sequences
  bool spent = false;                   // this sequence has had its steps
};

class LiveAdaptor {
 public:
  using Phase = AdaptationState::Phase;

  // From token `start` of the running sequence on; base: the recipe in force, to which revert() goes back.
  LiveAdaptor(AdaptationPlan plan, std::shared_ptr<const Recipe> base, uint64_t start)
      : start_(start), base_(std::move(base)) {
    state_.plan = std::move(plan);
  }

  void begin_sequence() { start_ = 0; }
  const AdaptationPlan& plan() const { return state_.plan; }
  const Recipe& base() const { return *base_; }
  Phase phase() const { return state_.phase; }
  void set_phase(Phase phase, std::string reason = {});
  bool keeps() const { return state_.plan.keep; }

  // Whether a step belongs before token `position` of a sequence whose prompt has `prompt` tokens: at the start, then
  // every `every` tokens behind the prompt.
  bool scheduled(uint64_t position, uint64_t prompt) const;

  // A step begins, goes on, ends without result.
  void begin_step();
  void iterated(const AdaptStep& step);
  void give_up_step();
  // It ended; its edits were taken.
  void end_step(AdaptationEntry entry, const std::vector<EditCommand>& edits);

  // The edits that put everything that steps changed back to what it was; empty: nothing was changed.
  std::vector<EditCommand> way_back(const ModelPlan& plan) const;
  void went_back() { touched_.clear(); }

  const SharedList<AdaptationEntry>& log() const { return state_.log; }
  // spent: the running branch has had its steps. Made anew only after a change.
  std::shared_ptr<const AdaptationState> state(bool spent);

 private:
  AdaptationState state_;
  uint64_t start_;
  std::shared_ptr<const Recipe> base_;
  std::map<std::string, Edit> touched_;  // by what they set: one edit for each place
  std::shared_ptr<const AdaptationState> shared_;
};

}  // namespace switchyard

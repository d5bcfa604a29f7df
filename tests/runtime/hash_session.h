// A session over the hash backend, a prompt and a sink that remembers, for the tests of this folder.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "engine/runtime/live_session.h"
#include "tests/routing/test_plan.h"
#include "tests/runtime/hash_backend.h"

namespace switchyard::test {

inline Checkpoint hash_checkpoint() {
  Checkpoint checkpoint;
  checkpoint.name = "hash";
  checkpoint.plan = small_plan();
  checkpoint.plan.vocab = 50;
  checkpoint.plan.context = 600;
  checkpoint.plan.eos_ids = {7};
  return checkpoint;
}

struct HashSession {
  explicit HashSession(SessionOptions options = {.ignore_eos = true}, Checkpoint model = hash_checkpoint())
      : checkpoint(std::move(model)),
        session(std::make_unique<LiveSession>(checkpoint, std::make_unique<HashBackend>(checkpoint.plan, controls), nullptr, nullptr, options)) {}
  Session* operator->() { return session.get(); }

  // Frames of the current sequence.
  std::vector<std::shared_ptr<const RoutingFrame>> frames() {
    const auto log = session->snapshot()->frames;
    return log->range(0, log->size());
  }

  const Checkpoint checkpoint;
  const std::shared_ptr<HashBackendControls> controls = std::make_shared<HashBackendControls>();
  std::unique_ptr<Session> session;
};

inline std::vector<TokenId> prompt_of(int tokens) {
  std::vector<TokenId> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back((i * 13 + 5) % 50);
  return ids;
}

inline bool same_routing(const RoutingFrame& a, const RoutingFrame& b) {
  return a.header().token_id == b.header().token_id && std::ranges::equal(a.arena(), b.arena());
}

// Writes down every call in words.
class NotingSink final : public TraceSink {
 public:
  Result<void> begin_sequence(uint32_t sequence, uint32_t prompt_tokens, SequenceOrigin fork) override {
    return note(fmt::format("sequence {} prompt {}", sequence, prompt_tokens) +
                (fork.parent < 0 ? "" : fmt::format(" from {} of {}", fork.offset, fork.parent)));
  }
  Result<void> begin_epoch(uint32_t epoch, uint64_t first, const std::string& json) override { return note(fmt::format("epoch {} from {} {}", epoch, first, json)); }
  Result<void> append(const RoutingFrame& frame) override {
    if (int(frame.header().token_index) == fail_at) return fail(ErrorCode::kOutput, "the disk is full", "x.moetrace.h5");
    return note(fmt::format("token {} epoch {}", frame.header().token_index, frame.header().recipe_epoch));
  }
  Result<void> close() override { return note("close"); }
  uint64_t dropped() const override { return 0; }

  std::vector<std::string> notes() const {
    const std::scoped_lock lock(mutex_);
    return notes_;
  }
  int fail_at = -1;

 private:
  Result<void> note(std::string text) {
    const std::scoped_lock lock(mutex_);
    notes_.push_back(std::move(text));
    return {};
  }
  mutable std::mutex mutex_;
  std::vector<std::string> notes_;
};

}  // namespace switchyard::test

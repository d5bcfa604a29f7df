// Branches of a session: rewind, going on with another branch, and routing again what was let go. Engine thread.
#include <algorithm>

#include <fmt/format.h>

#include "engine/runtime/live_session.h"

namespace switchyard {
namespace {

constexpr uint64_t kShadowLookBack = 256;  // tokens that a new shadow recipe is compared on at once

}  // namespace

void LiveSession::begin_tree() {
  branches_.clear();
  branches_.emplace_back().shown.name = "main";
  branch_ = 0;
  shared_branches_.reset();
}

Result<void> LiveSession::check_rewind(uint64_t token) const {
  if (!has_sequence()) return fail(ErrorCode::kUsage, "there is no sequence to rewind.", {}, "Start one first.");
  const std::string where = fmt::format("token {}", token);
  if (token > routed() || token >= known_tokens())
    return fail(ErrorCode::kUsage, fmt::format("the branch has routed {} tokens and knows {}.", routed(), known_tokens()),
                where, "Rewind to one of them.");
  const bool inside = token > 0 && (token < encoder_tokens_ || (one_piece_ && token > encoder_tokens_ && token < prompt_.size()));
  if (inside)
    return fail(ErrorCode::kUsage, "the prompt of this model runs in one piece; nothing begins within it.", where,
                fmt::format("Rewind to token 0, or to {} or later.", prompt_.size()));
  return {};
}

void LiveSession::handle(const Rewind& rewind) {
  if (auto fits = check_rewind(rewind.token); !fits) return report(std::move(fits).error());
  const bool runs_on = busy();
  const uint64_t token = rewind.token;
  // Everything that may fail comes before anything changes.
  std::unique_ptr<KvCache> cache = cache_->clone();
  std::shared_ptr<FrameLog> frames = frames_->prefix(token);
  BranchState next;
  next.shown = {.id = uint32_t(branches_.size()), .parent = branch_, .fork_token = token, .name = rewind.name};
  if (next.shown.name.empty()) next.shown.name = fmt::format("from token {}", token);
  if (token >= prompt_.size()) next.generated.assign(generated_.begin(), generated_.begin() + int64_t(token + 1 - prompt_.size()));
  next.limit = limit_;
  next.last_amount = last_amount_;
  next.mark = ledger_.mark_at(token);
  next.recorded = running().recorded;
  std::erase_if(next.recorded, [&](const auto& stretch) { return stretch.first >= token; });
  branches_.reserve(branches_.size() + 1);

  next.cache = std::move(cache);
  next.cache->truncate(int(std::min<uint64_t>(token, uint64_t(next.cache->length()))));
  next.frames = std::move(frames);
  park();
  branches_.push_back(std::move(next));
  take_over(uint32_t(branches_.size() - 1), runs_on);
}

void LiveSession::handle(const SwitchBranch& change) {
  if (change.branch >= branches_.size())
    return report({ErrorCode::kUsage, fmt::format("there is no branch {}; there are {}.", change.branch, branches_.size()), {}, {}});
  if (change.branch == branch_) return;
  BranchState& next = branches_[change.branch];
  if (!next.cache) {
    next.cache = backend_->new_cache(cache_->capacity());
    next.frames = std::make_shared<FrameLog>();
  }
  park();
  take_over(change.branch, false);
}

// A branch that is still being routed again keeps its tokens only.
void LiveSession::park() {
  BranchState& at = running();
  at.shown.tokens = known_tokens();
  at.shown.epoch = ledger_.recipe()->epoch;
  at.mark = ledger_.mark();
  at.limit = limit_;
  at.last_amount = last_amount_;
  at.logits.clear();
  if (!replaying()) {
    if (position() == known_tokens()) at.logits = logits_;
    at.cache = std::move(cache_);
    at.frames = std::move(frames_);
  }
  at.generated = std::move(generated_);
  at.parked_at = ++parked_;
}

// The branch that runs from here on; its cache is there, as far as it reaches.
void LiveSession::take_over(uint32_t branch, bool runs_on) {
  const bool back = branch < branches_.size() && branches_[branch].parked_at > 0;
  branch_ = branch;
  BranchState& at = running();
  cache_ = std::move(at.cache);
  frames_ = std::move(at.frames);
  generated_ = std::move(at.generated);
  limit_ = at.limit;
  last_amount_ = at.last_amount;
  if (!at.logits.empty()) std::copy(at.logits.begin(), at.logits.end(), logits_.begin());
  replay_to_ = at.mark.position;
  replay_epochs_ = SharedList<Epoch>(at.mark.epochs);
  ledger_.go_back(at.mark, back ? fmt::format("Go on with branch {}", at.shown.name)
                                : fmt::format("Rewind to token {}", at.mark.position));
  sink_begun_ = false;
  stop_after_prefill_ = stop_after_token_ = false;
  runs_on_ = runs_on;
  finish_ = Finish::kNone;
  state_ = RunState::kPaused;
  if (runs_on || replaying()) go_on();
  let_go_of_branches();
  restart_shadows();
  shared_branches_.reset();
  const std::scoped_lock lock(shared_mutex_);
  latest_frame_ = frames_->size() > 0 ? frames_->at(frames_->size() - 1) : nullptr;
}

void LiveSession::let_go_of_branches() {
  size_t held = 0;
  std::vector<BranchState*> parked;
  for (BranchState& branch : branches_) {
    branch.shown.held = &branch == &running() || branch.cache != nullptr;
    if (!branch.cache) continue;
    held += branch.cache->bytes() + branch.frames->bytes();
    parked.push_back(&branch);
  }
  std::sort(parked.begin(), parked.end(), [](const auto* a, const auto* b) { return a->parked_at < b->parked_at; });
  for (BranchState* branch : parked) {
    if (held <= options_.branch_bytes) return;
    held -= branch->cache->bytes() + branch->frames->bytes();
    branch->cache.reset();
    branch->frames.reset();
    branch->shown.held = false;
  }
}

const Epoch& LiveSession::epoch_at(uint64_t token) const {
  for (auto epoch = replay_epochs_.rbegin(); epoch != replay_epochs_.rend(); ++epoch)
    if (epoch->first_token <= token) return *epoch;
  return replay_epochs_.front();
}

// A piece of what was routed before, under the recipes of then. It is on record, and counts in nothing but the cache
// and, where the frames were let go, the frames.
void LiveSession::replay() {
  const uint64_t from = position();
  const Epoch& epoch = epoch_at(from);
  uint64_t to = std::min(piece_end(from), replay_to_);
  for (const Epoch& later : replay_epochs_)
    if (later.first_token > from && !one_piece_) to = std::min(to, later.first_token);
  const bool log = options_.keep_frames && frames_->size() <= from;
  if (options_.keep_frames && !log) to = std::min(to, frames_->size());
  std::vector<RoutingFrame> frames;
  if (log) frames = make_frames(to - from, *epoch.recipe);
  if (auto done = forward(from, to, to == known_tokens(), *epoch.recipe, frames); !done) {
    if (done.error().code == ErrorCode::kCancelled) return;
    report(std::move(done).error());
    state_ = RunState::kFailed;
    return;
  }
  for (size_t i = 0; i < frames.size(); ++i) {
    stamp(frames[i], from + i, epoch.epoch);
    frames[i].header().sampled_id = from + i + 1 >= prompt_.size() && from + i + 1 < known_tokens() ? token(from + i + 1) : -1;
    frames_->append(std::move(frames[i]));
  }
  if (replaying()) return;
  restart_shadows();
  state_ = RunState::kPaused;
  if (runs_on_) go_on();
}

void LiveSession::handle(SetShadows& set) {
  const auto tensors = [this]() -> Result<std::vector<RouterTensors>> {
    if (!weights_) return std::vector<RouterTensors>{};
    return read_router_tensors(checkpoint_.plan, *weights_);
  };
  if (auto done = shadows_.set(std::move(set.recipes), tensors); !done) return report(std::move(done).error());
  restart_shadows();
}

// From the last tokens of this branch on, as far as their frames are there.
void LiveSession::restart_shadows() {
  if (shadows_.empty()) return;
  const uint64_t size = frames_->size();
  const uint64_t first = std::max(frames_->first_kept(), size - std::min(size, kShadowLookBack));
  shadows_.restart(first);
  const SharedList<Epoch> epochs = ledger_.epochs();
  for (const auto& frame : frames_->range(first, size)) {
    auto epoch = epochs.rbegin();
    while (epoch != epochs.rend() && epoch->epoch != frame->header().recipe_epoch) ++epoch;
    if (epoch != epochs.rend()) shadows_.feed(frame, epoch->recipe);
  }
}

}  // namespace switchyard

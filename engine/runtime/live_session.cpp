// The callers' side of the Session, and opening one.
#include "engine/runtime/live_session.h"

#include <algorithm>
#include <filesystem>

namespace switchyard {

const Recipe* SessionSnapshot::recipe_at(uint64_t token_index) const {
  for (auto epoch = epochs.rbegin(); epoch != epochs.rend(); ++epoch)
    if (epoch->first_token <= token_index) return epoch->recipe && !epoch->recipe->is_identity() ? epoch->recipe.get() : nullptr;
  return nullptr;
}

namespace {

// Tokens that the cache holds, see SessionOptions::context.
int capacity_of(const ModelPlan& plan, const SessionOptions& options) {
  constexpr int kUsual = 4096;
  const int model = plan.context > 0 ? plan.context : kUsual;
  return std::min(model, options.context > 0 ? options.context : kUsual);
}

}  // namespace

Result<std::unique_ptr<Session>> Session::open(const Checkpoint& checkpoint, const SessionOptions& options, Task* task) {
  SY_CHECK(validate(options.sampling));
  // A model can be run by token ids without a tokenizer: one that cannot be read shows in the first snapshot.
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<Error> complaint;
  if (std::error_code error; std::filesystem::exists(checkpoint.folder / "tokenizer.json", error)) {
    auto loaded = Tokenizer::load(checkpoint);
    if (loaded) tokenizer = std::move(*loaded);
    else complaint = std::move(loaded).error();
  }
  SY_TRY(std::shared_ptr<const WeightStore> weights, WeightStore::open(checkpoint, task));
  SY_TRY(std::unique_ptr<Backend> backend,
         make_backend(options.backend, checkpoint, weights, {options.threads, capacity_of(checkpoint.plan, options)},
                      task));
  if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "opening was stopped", checkpoint.name);
  return std::make_unique<LiveSession>(checkpoint, std::move(backend), std::move(weights), std::move(tokenizer), options, std::move(complaint));
}

LiveSession::LiveSession(Checkpoint checkpoint, std::unique_ptr<Backend> backend,
                         std::shared_ptr<const WeightStore> weights, std::shared_ptr<const Tokenizer> tokenizer,
                         const SessionOptions& options, std::optional<Error> complaint)
    : checkpoint_(std::move(checkpoint)),
      backend_(std::move(backend)),
      weights_(std::move(weights)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      one_piece_(checkpoint_.plan.couples_tokens()),
      capture_(options.capture),
      taps_(0),
      sampling_(options.sampling),
      logits_(checkpoint_.plan.vocab),
      ledger_(checkpoint_.plan),
      shadows_(checkpoint_.plan),
      frames_(std::make_shared<FrameLog>()) {
  cache_ = backend_->new_cache(capacity_of(checkpoint_.plan, options));
  if (complaint) report(std::move(*complaint));
  handle(SetTaps{options.taps});
  publish(true);
  thread_ = std::thread([this] { run(); });
}

LiveSession::~LiveSession() {
  queue_.shut_down();
  thread_.join();
}

void LiveSession::handle(const SetTaps& set) {
  taps_ = set.taps;
  if (!(taps_ & Taps::kPredGate) || ahead_) return;
  auto made = weights_ ? GateAhead::make(checkpoint_.plan, *weights_)
                       : Result<std::unique_ptr<GateAhead>>(fail(ErrorCode::kUsage, "the routers are not at hand, which guess ahead."));
  if (made) {
    ahead_ = std::move(*made);
    return;
  }
  taps_ &= ~Taps::kPredGate;
  report(std::move(made).error());
}

// Against the model and against the recipe that the edits will meet, as far as it is known here. The engine thread
// checks again; what fails only there shows as an error of the snapshot.
Result<void> LiveSession::check(const std::vector<EditCommand>& edits) const {
  // First what is on its way, then the snapshot: an edit that arrives in between is met twice, none is missed.
  const std::vector<Edit> pending = queue_.pending();
  Recipe recipe = *snapshot()->epochs.back().recipe;
  for (const Edit& edit : pending) apply(edit, checkpoint_.plan, recipe);
  for (const size_t i : order_of_effect(edits)) {
    if (auto fits = validate(edits[i].edit, checkpoint_.plan, recipe); !fits) {
      const std::string where = edits.size() == 1 ? "" : "edits[" + std::to_string(i) + "]";
      return fail(fits.error().code, fits.error().what, where, fits.error().hint);
    }
    apply(edits[i].edit, checkpoint_.plan, recipe);
  }
  return {};
}

Result<void> LiveSession::send(EditCommand edit, std::string author) {
  SY_CHECK(validate(edit.edit, checkpoint_.plan));
  SY_CHECK(check_time(edit));
  if (!edit.at_token) SY_CHECK(check({edit}));
  queue_.push(EditRequest{{std::move(edit)}, std::move(author), false});
  return {};
}

Result<void> LiveSession::send(std::vector<EditCommand> script, std::string author) {
  if (script.empty()) return {};
  for (const EditCommand& edit : script) SY_CHECK(check_time(edit));
  SY_CHECK(check(script));
  queue_.push(EditRequest{std::move(script), std::move(author), true});
  return {};
}

std::shared_ptr<const SessionSnapshot> LiveSession::snapshot() const {
  const std::scoped_lock lock(shared_mutex_);
  return snapshot_;
}

std::shared_ptr<const RoutingFrame> LiveSession::latest_frame() const {
  const std::scoped_lock lock(shared_mutex_);
  return latest_frame_;
}

void LiveSession::set_listener(std::function<void()> on_change) {
  const std::scoped_lock lock(listener_mutex_);
  listener_ = std::move(on_change);
}

std::shared_ptr<const SessionSnapshot> LiveSession::wait() {
  queue_.wait_settled();
  return snapshot();
}

void LiveSession::publish(bool at_once) {
  // A fast model makes more tokens than eyes can follow; the last state before the engine waits is always published.
  constexpr auto kInterval = std::chrono::milliseconds(4);
  const auto now = Clock::now();
  if (!at_once && now - published_at_ < kInterval) return;
  published_at_ = now;

  auto out = std::make_shared<SessionSnapshot>();
  out->state = state_;
  out->finish = finish_;
  out->backend = backend_->info();
  out->capture = capture_;
  out->taps = taps_;
  out->sampling = sampling_;
  out->sequence = sequence_;
  out->prompt_ids = prompt_;
  out->generated_ids = generated_;
  out->encoder_tokens = encoder_tokens_;
  out->max_new_tokens = limit_;
  out->prefill_tokens_per_s = meter_.prefill_rate();
  out->decode_tokens_per_s = meter_.decode_rate();
  out->mean_decode_tokens_per_s = meter_.mean_decode_rate();
  out->capture_cost = meter_.capture_cost();
  out->epochs = ledger_.epochs();
  out->history = ledger_.history();
  out->history_cursor = ledger_.cursor();
  out->edits_taken = edits_taken_;
  out->scheduled = ledger_.scheduled();
  out->path_ahead = ledger_.path_ahead();
  out->frames = frames_;
  out->dropped_frames = sink_ ? sink_->dropped() : dropped_;
  out->recording = sink_ != nullptr;
  out->error = error_;
  out->error_serial = error_serial_;
  out->kv_bytes = cache_->bytes();
  if (!branches_.empty()) {
    Branch& shown = running().shown;
    if (shown.tokens != known_tokens() || shown.epoch != ledger_.recipe()->epoch) {
      shown.tokens = known_tokens();
      shown.epoch = ledger_.recipe()->epoch;
      shared_branches_.reset();
    }
    if (!shared_branches_) {
      std::vector<Branch> list;
      for (const BranchState& branch : branches_) list.push_back(branch.shown);
      shared_branches_.emplace(list);
    }
    out->branches = *shared_branches_;
    out->branch = branch_;
  }
  out->shadows = shadows_.state(at_once);
  if (adaptor_) out->adaptation = adaptor_->state(steps_taken() >= adaptor_->plan().max_steps);
  if (at_once || now - adapters_shared_at_ > std::chrono::milliseconds(100)) {
    shared_adapters_ = adapter_log_.linears.empty() ? nullptr : std::make_shared<const AdapterLog>(adapter_log_);
    adapters_shared_at_ = now;
  }
  out->adapters = shared_adapters_;
  {
    const std::scoped_lock lock(shared_mutex_);
    snapshot_ = std::move(out);
  }
  const std::scoped_lock lock(listener_mutex_);
  if (listener_) listener_();
}

}  // namespace switchyard

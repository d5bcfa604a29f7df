// Session: the engine thread behind one interface of commands in, frames and snapshots out.
// It owns the backend, the KV cache and the recipe in force; nobody else touches them.
// Every public function may be called from any thread and never waits for the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/analysis/shadow.h"
#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"
#include "engine/routing/frame.h"
#include "engine/runtime/frame_log.h"
#include "engine/runtime/live_adaptor.h"
#include "engine/runtime/sampler.h"
#include "engine/runtime/shadow_log.h"
#include "engine/runtime/shared_list.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

class TraceSink;  // engine/trace/sink.h: where every frame goes on record

struct SessionOptions {
  std::string backend = "auto";
  int threads = 0;                // 0: one per core; the window asks for cores - 1
  int context = 0;                // KV capacity in tokens, at most the model's; 0: min(model's, 4096)
  CaptureLevel capture = CaptureLevel::kLogits;
  uint8_t taps = 0;               // of Taps, in every frame
  Sampling sampling;
  bool ignore_eos = false;
  bool keep_frames = true;        // fill the FrameLog; a CLI run that only records turns it off
  // Bytes of keys, values and frames that branches which do not run may hold, counted as if none were shared. What
  // is let go, oldest first, is made anew from the branch's tokens when one goes on with it.
  size_t branch_bytes = size_t(1) << 30;
};

// A recipe that is only looked at: what it would do with the router logits of the run (gating.md, shadow mode).
struct ShadowRecipe {
  std::string name;
  std::vector<EditCommand> script;  // in force beside the native router, whatever edits the run itself is under
};
inline constexpr size_t kMostShadows = 8;

// Transport commands, taken in order at token boundaries. A running prefill is interruptible.
// The prompt of an encoder-decoder goes through the encoder; the decoder's start token follows it, and what the decoder
// generates. Such a prompt, and that of any model whose routing couples the tokens that run together, runs in one
// piece: an edit for a token within it takes effect behind it. A command that cannot be carried out leaves everything
// as it is and shows as SessionSnapshot::error.
struct Start {                    // a new sequence: cache emptied, prefill, then generate
  std::vector<TokenId> prompt;
  uint64_t max_new_tokens = 0;
  bool paused = false;            // prefill only, then wait
};
struct Play { uint64_t max_new_tokens = 0; };  // go on: so many more; 0: what is left, else as many again as before
struct Pause {};
struct Step {};                   // exactly one token, then paused
struct Stop {};                   // ends the sequence; its frames and text stay readable
struct Reset {};                  // forgets the sequence; edits and history stay in force
struct SetSampling { Sampling sampling; };
struct SetCapture { CaptureLevel level = CaptureLevel::kLogits; };
struct SetTaps { uint8_t taps = 0; };  // of Taps, for frames to come; a recording that needs them ends with an error without
struct SetThreads { int threads = 0; };
// A new branch on which token `token`, which is known, is the next to be routed, under the edits that were in force
// for it; tokens before it are shared with the branch that is left, and that one is kept. A run that was going on
// goes on. Refused inside a piece that runs in one pass (an encoder's tokens, a prompt whose tokens are coupled).
struct Rewind { uint64_t token = 0; std::string name = {}; };  // name: empty: "from token 12"
struct SwitchBranch { uint32_t branch = 0; };  // goes on with a branch where it was left, paused
struct SetShadows { std::vector<ShadowRecipe> recipes; };  // instead of those before; at most kMostShadows
// Adapts the routers while the model runs, from the next token on (the prompt as a whole, where it was not routed yet),
// instead of what was being adapted: every step is an entry of the history, "Adaptation · step 3". The run waits for a
// step; commands that end or pause it cut the step short, and it is computed again when the run goes on.
struct StartAdaptation { AdaptationPlan plan; };
struct FreezeAdaptation { bool frozen = true; };  // no more steps; what was found stays. false: goes on
struct RevertAdaptation {};                       // ends it; one entry puts back all that its steps changed
using TransportCommand = std::variant<Start, Play, Pause, Step, Stop, Reset, SetSampling, SetCapture, SetTaps, SetThreads, Rewind,
                                      SwitchBranch, SetShadows, StartAdaptation, FreezeAdaptation, RevertAdaptation>;

enum class RunState : uint8_t { kIdle, kPrefilling, kGenerating, kPaused, kFinished, kFailed };
enum class Finish : uint8_t { kNone, kLength, kEos, kStopped, kContextFull };

// One entry of the edit history, oldest first. Entries after the cursor are undone and can be redone.
// A drag (edits of one number with the same tag, less than a second apart) is one entry.
struct HistoryEntry {
  std::vector<EditCommand> edits;  // usually one; a loaded script is one entry
  std::string sentence;
  std::string author = "user";     // user, script, plugin, adaptor
  bool applied = true;             // false: every edit of it still waits for its at_token
  uint32_t epoch = 0;              // epoch that first carried it (a drag: its last value), also when undone since; waiting: 0
  uint32_t sequence = 0;
  uint64_t first_token = 0;        // index of the first token routed under it; scheduled: the at_token
  bool at_prefill = false;         // nothing but layer paths: where not applied, it waits for the next sequence
};

// A span of tokens under one recipe; epochs only grow. Edits between the same two tokens make one epoch, and
// edits before the first token of all belong to epoch 0.
struct Epoch {
  uint32_t epoch = 0;
  uint32_t sequence = 0;
  uint64_t first_token = 0;
  std::string sentence;                   // what began it: "Mute expert 5 in layer 3", "Undo: …"
  std::vector<EditCommand> edits;         // the fewest edits that make the recipe (edits_of), without at_token
  std::shared_ptr<const Recipe> recipe;   // never null
};

// A branch of the sequence. The tree is forgotten when a new sequence starts.
struct Branch {
  uint32_t id = 0;                  // 0: the first
  std::optional<uint32_t> parent;   // nullopt: the first
  uint64_t fork_token = 0;          // tokens before it are the parent's
  std::string name;
  uint64_t tokens = 0;              // known: prompt and generated
  uint32_t epoch = 0;               // in force where it stands
  bool held = true;                 // false: its keys, values and frames were let go (SessionOptions::branch_bytes)
};

// A shadow recipe and what it would have done on this branch, from `first_token` on.
struct ShadowState {
  std::string name;
  std::vector<EditCommand> script;
  std::string unavailable;                  // why nothing more is compared, a sentence; empty: it is
  uint64_t first_token = 0, next_token = 0; // tokens [first_token, next_token) were looked at
  std::shared_ptr<const GateShift> totals;  // never null; base: the run, other: this recipe
  std::vector<GateDifference> last;         // [routing rows] of token next_token - 1
  std::shared_ptr<const ShadowLog> tokens;  // never null
};

// What the engine thread last published; immutable.
struct SessionSnapshot {
  RunState state = RunState::kIdle;
  Finish finish = Finish::kNone;
  BackendInfo backend;
  CaptureLevel capture = CaptureLevel::kLogits;
  uint8_t taps = 0;
  Sampling sampling;
  uint32_t sequence = 0;
  std::vector<TokenId> prompt_ids;  // encoder-decoder: the encoder's tokens, then the decoder's start
  uint64_t encoder_tokens = 0;      // the first so many of prompt_ids; 0: the model has no encoder
  std::vector<TokenId> generated_ids;
  uint64_t max_new_tokens = 0;            // generation ends when generated_ids has so many
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;         // over the last second of generation
  double mean_decode_tokens_per_s = 0;    // over the sequence
  double capture_cost = 0;                // measured share of the token time spent in capture, 0..1
  SharedList<Epoch> epochs;               // of this sequence, the one in force at its start first; never empty
  SharedList<HistoryEntry> history;
  size_t history_cursor = 0;              // entries [0, cursor) are in force
  uint64_t edits_taken = 0;               // calls of send(edit), undo, redo and undo_to that all of this reflects
  std::vector<EditCommand> scheduled;     // script entries whose at_token lies ahead
  LayerPath path_ahead;                   // of the next sequence; that of the running one is its recipe's
  std::shared_ptr<const FrameLog> frames; // of this sequence
  uint64_t dropped_frames = 0;            // not recorded (free-run mode); always 0 in record mode
  bool recording = false;
  std::optional<Error> error;             // state kFailed, or the last refused command
  uint64_t error_serial = 0;              // grows with each new error
  uint64_t kv_bytes = 0;
  SharedList<Branch> branches;            // of this sequence, in order of id; empty: no sequence
  uint32_t branch = 0;                    // the one that runs
  std::shared_ptr<const std::vector<ShadowState>> shadows;  // null: none
  std::shared_ptr<const AdaptationState> adaptation;        // null: none was started
  // What the routers of the adapters in force decided since they are; null: none has yet. Up to 100 ms old while a run goes on.
  std::shared_ptr<const AdapterLog> adapters;

  const Recipe* recipe_at(uint64_t token_index) const;  // nullptr: identity or unknown
};

class Session {
 public:
  // Opens weights and backend on the calling thread (a job, never the GUI thread), then starts the engine thread.
  static Result<std::unique_ptr<Session>> open(const Checkpoint& checkpoint, const SessionOptions& options,
                                               Task* task = nullptr);
  virtual ~Session() = default;  // stops and joins; a trace in progress is closed cleanly

  virtual const Checkpoint& checkpoint() const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;  // nullptr: the folder has none

  virtual void send(TransportCommand command) = 0;

  // An edit is validated at once (the error is returned, nothing is queued) and applied at the next
  // token boundary. Edits with equal tags that wait in the queue one after the other replace each other. An edit
  // with at_token is scheduled.
  virtual Result<void> send(EditCommand edit, std::string author = "user") = 0;
  // A script: all or nothing. Entries with at_token > current token are scheduled, others apply now.
  virtual Result<void> send(std::vector<EditCommand> script, std::string author = "script") = 0;
  virtual void undo() = 0;                 // no-op when there is nothing to undo
  virtual void redo() = 0;
  virtual void undo_to(size_t cursor) = 0; // history entries [0, cursor) stay in force (either direction)

  // From the next token on every frame also goes to `sink`; the engine waits when the sink is full
  // (record mode). nullptr stops recording; the sink is closed on the engine thread and then released.
  virtual void record_to(std::shared_ptr<TraceSink> sink) = 0;

  virtual std::shared_ptr<const SessionSnapshot> snapshot() const = 0;
  // The newest frame of the current sequence; may be null.
  virtual std::shared_ptr<const RoutingFrame> latest_frame() const = 0;
  // Called on the engine thread after each publication; must return at once (post a wake-up, no work).
  virtual void set_listener(std::function<void()> on_change) = 0;
  // Blocks the caller until the state is none of prefilling, generating and no command is pending
  // (CLI and tests). Returns the snapshot then in force.
  virtual std::shared_ptr<const SessionSnapshot> wait() = 0;
};

}  // namespace switchyard

// The books of the engine thread about edits: history with undo and redo, edits that wait for their token, the
// recipe in force and the epochs it went through. A layer path holds for a whole sequence: it is held back here until the
// next one begins. No thread of its own; nothing here touches a backend.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/edit.h"
#include "engine/runtime/session.h"

namespace switchyard {

// Positions of edits in the order in which they take effect.
std::vector<size_t> order_of_effect(const std::vector<EditCommand>& edits);

class EditLedger {
 public:
  using Clock = std::chrono::steady_clock;

  explicit EditLedger(const ModelPlan& plan);

  // Tokens. `position` is the index of the next token to be routed; edits apply to it and to all after it.
  void begin_sequence(uint32_t sequence);  // position 0; edits, history and scheduled entries stay; a held path is in force
  void tokens_routed(uint64_t count);      // under the recipe in force
  uint64_t position() const { return position_; }

  // Edits. All of one call become one history entry, or none of them (the error says which does not fit).
  // Edits with at_token beyond the position wait. What was undone before is forgotten.
  // name: of the entry, instead of a sentence made of its edits; such an entry is never part of a drag.
  Result<void> add(std::vector<EditCommand> edits, std::string author, Clock::time_point now, std::string name = {});
  // Applies the waiting edits whose token has come; one that no longer fits is dropped and named in the result.
  Result<void> apply_due();
  void undo() { move_cursor(cursor_ > 0 ? cursor_ - 1 : 0); }
  void redo() { move_cursor(cursor_ + 1); }
  void move_cursor(size_t cursor);  // entries [0, cursor) stay in force

  // What a branch keeps of the books: where it stood, the edits in force there and the epochs that led to it.
  struct Mark;
  Mark mark();                       // as they are now
  Mark mark_at(uint64_t token);      // as they were when `token` was routed; token <= position()
  // Goes on from there: the edits then in force are in force again, as a new epoch that `reason` describes. Later
  // entries of the history stay, undone; where an entry was replaced since, one new entry restores what it did.
  void go_back(const Mark& mark, const std::string& reason);

  const std::shared_ptr<const Recipe>& recipe() const { return recipe_; }
  // The layer path of the next sequence, by the edits in force; that of the running one is the recipe's.
  const LayerPath& path_ahead() const { return path_ahead_; }
  // What the chooser of the recipe in force decided for this sequence, before its first token.
  void decide_path(std::vector<uint8_t> passes);
  // The smallest at_token that still waits; nullopt: none.
  std::optional<uint64_t> next_scheduled() const { return next_scheduled_; }

  // For snapshots; made anew only after a change.
  SharedList<Epoch> epochs();
  SharedList<HistoryEntry> history();
  std::vector<EditCommand> scheduled() const;
  size_t cursor() const { return cursor_; }
  // The entry of the epoch in force.
  const Epoch& current_epoch();

 private:
  // An edit of an entry: waiting, or applied and in the log.
  struct Part {
    EditCommand command;
    bool applied = false;
    bool dropped = false;  // did not fit when its token came
  };
  struct Entry {
    uint64_t serial = 0;  // what lies below an entry never changes: cursor and serial name a state of the history
    HistoryEntry shown;
    std::shared_ptr<const HistoryEntry> shared;  // shown, as it is published; null after a change
    std::vector<Part> parts;
    Clock::time_point when;
  };
  // Applied edits in the order in which they took effect, each with what takes it back.
  struct Applied {
    size_t entry, part;
    std::vector<Edit> inverse;
  };

  // Where the cursor stood from a token on.
  struct CursorAt {
    uint64_t position = 0;
    size_t cursor = 0;
    uint64_t top = 0;  // serial of the last entry in force
  };

  uint64_t top() const { return cursor_ > 0 ? entries_[cursor_ - 1].serial : 0; }
  Recipe ahead() const;  // what the next edit meets: the recipe in force, and the path of the next sequence
  // Applies the entries in force anew, those parts whose token has come. path: of the sequence.
  Recipe rebuilt(const LayerPath& path);
  void restore_by_entry(Recipe& recipe, const Mark& mark, const std::string& reason);
  void carry_out(size_t entry, Recipe recipe, const std::string& prefix);
  void apply_part(size_t entry, size_t part, Recipe& recipe);
  void take_back(size_t entry, Recipe& recipe);
  bool continues_drag(const Entry& entry) const;
  void wait_anew(Entry& entry);    // none of its edits is in force
  void took_effect(Entry& entry);  // the first of them is
  // Some edit of it is in force, a path where the sequence's is that of the edits (`reached`).
  static bool in_force(const Entry& entry, bool reached);
  void history_changed();
  std::vector<const Part*> waiting() const;
  void install(Recipe recipe, std::string reason);  // makes the next epoch, or remakes one that has no token yet
  void finish_epoch();                              // the newest epoch's sentence and edits

  const ModelPlan& plan_;
  std::vector<Entry> entries_;
  size_t cursor_ = 0;
  std::vector<Applied> log_;

  std::shared_ptr<const Recipe> recipe_;
  LayerPath path_ahead_, path_of_sequence_;  // the latter as the edits had it when the sequence began
  std::vector<CursorAt> cursors_ = {{}};  // of this branch, by rising position
  uint64_t next_serial_ = 1;
  SharedList<Epoch>::Items epochs_;   // the newest is newest_
  Epoch newest_;
  std::vector<std::string> reasons_;  // of the newest epoch
  bool epoch_used_ = false;           // a token of any sequence was routed under it
  uint32_t sequence_ = 0;
  uint64_t position_ = 0;

  bool epoch_stale_ = false;  // finish_epoch() has something to do
  std::optional<uint64_t> next_scheduled_;
  std::optional<SharedList<Epoch>> shared_epochs_;
  std::optional<SharedList<HistoryEntry>> shared_history_;
};

struct EditLedger::Mark {
  uint64_t position = 0;
  CursorAt cursor;
  std::shared_ptr<const Recipe> recipe;  // in force for the token at `position`
  LayerPath path;                        // of the sequence, as the edits had it
  SharedList<Epoch>::Items epochs;       // of the tokens before it
  std::vector<CursorAt> cursors;
};

}  // namespace switchyard

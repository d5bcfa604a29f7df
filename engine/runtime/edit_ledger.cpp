#include "engine/runtime/edit_ledger.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace switchyard {
namespace {

constexpr auto kDragPause = std::chrono::seconds(1);
constexpr uint32_t kNoEpoch = std::numeric_limits<uint32_t>::max();  // go_back() gives the entry the new one

// "mute expert 5 in layer 3": a sentence inside another.
std::string lowered(std::string sentence) {
  if (!sentence.empty() && sentence[0] >= 'A' && sentence[0] <= 'Z') sentence[0] += 'a' - 'A';
  return sentence;
}

std::string sentence_of(const std::vector<EditCommand>& edits) {
  if (edits.size() != 1) return fmt::format("Script of {} edits", edits.size());
  std::string sentence = describe(edits[0].edit);
  if (edits[0].at_token.value_or(0) > 0) sentence += fmt::format(" from token {}", *edits[0].at_token);
  return sentence;
}

std::string joined(const std::vector<std::string>& reasons) {
  if (reasons.size() > 4) return fmt::format("{} edits, the last: {}", reasons.size(), reasons.back());
  std::string text;
  for (const std::string& reason : reasons) text += (text.empty() ? "" : "; ") + reason;
  return text;
}

uint64_t token_of(const EditCommand& command) { return command.at_token.value_or(0); }

// Kinds that a slider sets.
bool sets_a_number(const Edit& edit) {
  return std::visit([](const auto& e) { return requires { e.value; } || requires { e.scale; } || requires { e.k; } || requires { e.scheme; } || requires { e.adapters; }; }, edit);
}

}  // namespace

std::vector<size_t> order_of_effect(const std::vector<EditCommand>& edits) {
  std::vector<size_t> order(edits.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return token_of(edits[a]) < token_of(edits[b]); });
  return order;
}

EditLedger::EditLedger(const ModelPlan& plan) : plan_(plan), recipe_(std::make_shared<const Recipe>()) {
  newest_.recipe = recipe_;
}

void EditLedger::begin_sequence(uint32_t sequence) {
  finish_epoch();
  newest_.sequence = sequence;
  newest_.first_token = 0;
  epochs_.clear();
  shared_epochs_.reset();
  sequence_ = sequence;
  position_ = 0;
  cursors_ = {{0, cursor_, top()}};
  if (path_ahead_ == path_of_sequence_ && !path_ahead_.chooser) return;  // a chooser decides anew
  install(ahead(), describe(path_ahead_));
  for (size_t e = 0; e < cursor_; ++e)
    if (in_force(entries_[e], true)) took_effect(entries_[e]);
  history_changed();
}

Recipe EditLedger::ahead() const {
  Recipe recipe = *recipe_;
  recipe.path = path_ahead_;
  return recipe;
}

void EditLedger::decide_path(std::vector<uint8_t> passes) {
  Recipe recipe = *recipe_;
  recipe.path = {.passes = std::move(passes), .chooser = {}};
  recipe_ = newest_.recipe = std::make_shared<const Recipe>(std::move(recipe));
  newest_.edits.clear();
  epoch_stale_ = true;
  shared_epochs_.reset();
}

bool EditLedger::in_force(const Entry& entry, bool reached) {
  return std::any_of(entry.parts.begin(), entry.parts.end(), [&](const Part& part) {
    return part.applied && (reached || !std::holds_alternative<LayerPath>(part.command.edit));
  });
}

EditLedger::Mark EditLedger::mark() {
  finish_epoch();
  Mark mark{position_, {position_, cursor_, top()}, recipe_, path_of_sequence_, epochs_, cursors_};
  if (newest_.first_token < position_) mark.epochs.push_back(std::make_shared<const Epoch>(newest_));
  return mark;
}

EditLedger::Mark EditLedger::mark_at(uint64_t token) {
  Mark mark = this->mark();
  if (token >= position_) return mark;
  mark.position = token;
  while (mark.cursors.size() > 1 && mark.cursors.back().position > token) mark.cursors.pop_back();
  mark.cursor = mark.cursors.back();
  while (mark.epochs.back()->first_token > token) mark.epochs.pop_back();
  mark.recipe = mark.epochs.back()->recipe;
  if (mark.epochs.back()->first_token == token) mark.epochs.pop_back();
  return mark;
}

void EditLedger::go_back(const Mark& mark, const std::string& reason) {
  position_ = mark.position;
  epochs_ = mark.epochs;
  cursors_ = mark.cursors;
  const size_t cursor = mark.cursor.cursor;
  if (cursor <= entries_.size() && (cursor == 0 || entries_[cursor - 1].serial == mark.cursor.top)) cursor_ = cursor;
  Recipe recipe = rebuilt(mark.path);
  restore_by_entry(recipe, mark, reason);
  path_ahead_ = recipe.path;
  path_of_sequence_ = mark.path;
  recipe.path = position_ > 0 ? mark.recipe->path : mark.path;

  recipe.epoch = recipe_->epoch + (epoch_used_ ? 1 : 0);
  epoch_used_ = false;
  recipe_ = std::make_shared<const Recipe>(std::move(recipe));
  newest_ = {.epoch = recipe_->epoch, .sequence = sequence_, .first_token = position_, .recipe = recipe_};
  reasons_ = {reason};
  epoch_stale_ = true;
  shared_epochs_.reset();
  // What this branch was not routed under before is in force from here on.
  for (size_t e = 0; e < cursor_; ++e) {
    Entry& entry = entries_[e];
    const auto routed = [&](const auto& epoch) { return epoch->epoch == entry.shown.epoch; };
    if (!entry.shown.applied || std::any_of(epochs_.begin(), epochs_.end(), routed)) continue;
    entry.shared.reset();
    entry.shown.applied = false;
    took_effect(entry);
  }
  history_changed();
}

Recipe EditLedger::rebuilt(const LayerPath& path) {
  // In the order in which they took effect, then those that take effect now.
  std::vector<std::pair<size_t, size_t>> due;
  const auto is_due = [&](size_t e, size_t p) { return e < cursor_ && token_of(entries_[e].parts[p].command) <= position_; };
  for (const Applied& item : log_)
    if (is_due(item.entry, item.part)) due.emplace_back(item.entry, item.part);
  for (size_t e = 0; e < cursor_; ++e)
    for (size_t p = 0; p < entries_[e].parts.size(); ++p)
      if (is_due(e, p) && !entries_[e].parts[p].applied) due.emplace_back(e, p);
  log_.clear();
  for (Entry& entry : entries_)
    for (Part& part : entry.parts) part.applied = part.dropped = false;
  Recipe recipe;
  for (const auto& [e, p] : due) {
    if (validate(entries_[e].parts[p].command.edit, plan_, recipe)) apply_part(e, p, recipe);
    else entries_[e].parts[p].dropped = true;
  }
  for (size_t e = 0; e < cursor_; ++e) {
    const bool applied = in_force(entries_[e], recipe.path == path);
    if (applied == entries_[e].shown.applied) continue;
    if (!applied) {
      wait_anew(entries_[e]);
    } else {
      entries_[e].shown.applied = true;
      entries_[e].shown.epoch = kNoEpoch;
    }
  }
  return recipe;
}

// The history no longer says how `wanted` came about: one entry on top takes the recipe there.
void EditLedger::restore_by_entry(Recipe& recipe, const Mark& mark, const std::string& reason) {
  Recipe wanted = *mark.recipe;
  wanted.path = position_ > 0 ? recipe.path : mark.path;  // within a sequence the edits may say what they like of the next
  if (recipe.layers == wanted.layers && recipe.adapters == wanted.adapters && recipe.path == wanted.path) return;
  Entry entry{.serial = next_serial_++};
  for (const Edit& edit : edits_of(recipe, plan_))
    for (Edit& neutral : invert(edit, plan_, {})) entry.parts.push_back({{std::move(neutral), std::nullopt}});
  for (Edit& edit : edits_of(wanted, plan_)) entry.parts.push_back({{std::move(edit), std::nullopt}});
  for (const Part& part : entry.parts) entry.shown.edits.push_back(part.command);
  entry.shown.sentence = reason + ": the edits in force there";
  entry.shown.author = "rewind";
  entry.shown.applied = true;
  entry.shown.epoch = kNoEpoch;
  entries_.resize(cursor_);
  entries_.push_back(std::move(entry));
  ++cursor_;
  for (size_t part = 0; part < entries_.back().parts.size(); ++part) apply_part(cursor_ - 1, part, recipe);
}

void EditLedger::tokens_routed(uint64_t count) {
  position_ += count;
  epoch_used_ = true;
}

Result<void> EditLedger::add(std::vector<EditCommand> edits, std::string author, Clock::time_point now, std::string name) {
  if (edits.empty()) return {};
  for (const EditCommand& edit : edits) SY_CHECK(check_time(edit));
  Entry entry{.serial = next_serial_++, .shown = {.edits = edits, .sentence = name.empty() ? sentence_of(edits) : name, .author = std::move(author)}, .when = now};
  const bool drag = name.empty() && continues_drag(entry);
  // All of them must fit together.
  Recipe trial = ahead();
  for (const size_t i : order_of_effect(edits)) {
    if (auto fits = validate(edits[i].edit, plan_, trial); !fits) {
      const std::string where = edits.size() == 1 ? describe(edits[i].edit) : fmt::format("edits[{}]", i);
      return fail(fits.error().code, fits.error().what, where, fits.error().hint);
    }
    apply(edits[i].edit, plan_, trial);
    entry.parts.push_back({edits[i]});
  }
  wait_anew(entry);

  entries_.resize(cursor_);
  Recipe recipe = ahead();
  if (drag) {
    take_back(cursor_ - 1, recipe);
    if (!epoch_used_) reasons_.pop_back();
    entries_.pop_back();
    --cursor_;
  }
  entries_.push_back(std::move(entry));
  ++cursor_;
  carry_out(cursor_ - 1, std::move(recipe), "");
  history_changed();
  return {};
}

Result<void> EditLedger::apply_due() {
  if (!next_scheduled_ || *next_scheduled_ > position_) return {};
  Result<void> result;
  for (size_t e = 0; e < cursor_; ++e) {
    for (size_t p = 0; p < entries_[e].parts.size(); ++p) {
      Part& part = entries_[e].parts[p];
      if (part.applied || part.dropped || token_of(part.command) > position_) continue;
      if (auto fits = validate(part.command.edit, plan_, *recipe_); !fits) {
        part.dropped = true;
        result = fail(fits.error().code, fits.error().what, describe(part.command.edit), "The edit was dropped.");
        continue;
      }
      Recipe recipe = ahead();
      apply_part(e, p, recipe);
      install(std::move(recipe), describe(part.command.edit));
      took_effect(entries_[e]);
    }
  }
  history_changed();
  return result;
}

void EditLedger::move_cursor(size_t cursor) {
  cursor = std::min(cursor, entries_.size());
  if (cursor == cursor_) return;
  while (cursor_ > cursor) {
    Entry& entry = entries_[--cursor_];
    if (std::any_of(entry.parts.begin(), entry.parts.end(), [](const Part& part) { return part.applied; })) {
      Recipe recipe = ahead();
      take_back(cursor_, recipe);
      install(std::move(recipe), "Undo: " + lowered(entry.shown.sentence));
    }
    for (Part& part : entry.parts) part.applied = part.dropped = false;
  }
  while (cursor_ < cursor) {
    wait_anew(entries_[cursor_++]);
    carry_out(cursor_ - 1, ahead(), "Redo: ");
  }
  history_changed();
}

// Applies those edits of an entry whose token has come.
void EditLedger::carry_out(size_t entry, Recipe recipe, const std::string& prefix) {
  bool changed = false;
  for (size_t part = 0; part < entries_[entry].parts.size(); ++part) {
    if (token_of(entries_[entry].parts[part].command) > position_) continue;
    apply_part(entry, part, recipe);
    changed = true;
  }
  if (!changed) return;
  const std::string& sentence = entries_[entry].shown.sentence;
  install(std::move(recipe), prefix.empty() ? sentence : prefix + lowered(sentence));
  if (in_force(entries_[entry], path_ahead_ == path_of_sequence_)) took_effect(entries_[entry]);
}

void EditLedger::apply_part(size_t entry, size_t part, Recipe& recipe) {
  Part& applied = entries_[entry].parts[part];
  log_.push_back({entry, part, invert(applied.command.edit, plan_, recipe)});
  apply(applied.command.edit, plan_, recipe);
  applied.applied = true;
}

// Takes an entry's edits out of the recipe. What took effect after the first of them (a scheduled edit of an
// older entry can) is taken back too and then applied again.
void EditLedger::take_back(size_t entry, Recipe& recipe) {
  auto first = log_.end();  // its first edit; looked for from the newest, where it nearly always is
  for (auto left = std::count_if(entries_[entry].parts.begin(), entries_[entry].parts.end(), [](const Part& part) { return part.applied; }); left > 0;)
    if ((--first)->entry == entry) --left;
  std::vector<Applied> later(std::make_move_iterator(first), std::make_move_iterator(log_.end()));
  log_.erase(first, log_.end());
  for (auto item = later.rbegin(); item != later.rend(); ++item)
    for (const Edit& inverse : item->inverse) apply(inverse, plan_, recipe);
  for (const Applied& item : later) {
    if (item.entry == entry) entries_[entry].parts[item.part].applied = false;
    else apply_part(item.entry, item.part, recipe);
  }
}

bool EditLedger::continues_drag(const Entry& entry) const {
  if (entry.shown.edits.size() != 1 || token_of(entry.shown.edits[0]) > position_ || !sets_a_number(entry.shown.edits[0].edit)) return false;
  if (cursor_ == 0 || cursor_ != entries_.size()) return false;
  const Entry& last = entries_.back();
  return last.parts.size() == 1 && !log_.empty() && log_.back().entry == cursor_ - 1 && last.shown.author == entry.shown.author &&
         entry.when - last.when < kDragPause && tag(last.parts[0].command.edit) == tag(entry.shown.edits[0].edit);
}

void EditLedger::wait_anew(Entry& entry) {
  entry.shared.reset();
  entry.shown.applied = false;
  entry.shown.at_prefill = std::all_of(entry.parts.begin(), entry.parts.end(), [](const Part& part) {
    return std::holds_alternative<LayerPath>(part.command.edit);
  });
  entry.shown.epoch = 0;
  entry.shown.sequence = sequence_;
  entry.shown.first_token = token_of(entry.parts.front().command);
}

void EditLedger::took_effect(Entry& entry) {
  if (entry.shown.applied) return;
  entry.shared.reset();
  entry.shown.applied = true;
  entry.shown.epoch = recipe_->epoch;
  entry.shown.sequence = sequence_;
  entry.shown.first_token = position_;
}

void EditLedger::history_changed() {
  shared_history_.reset();
  if (cursors_.back().position != position_) cursors_.push_back({});
  cursors_.back() = {position_, cursor_, top()};
  next_scheduled_.reset();
  for (const Part* part : waiting())
    if (!next_scheduled_ || *part->command.at_token < *next_scheduled_) next_scheduled_ = part->command.at_token;
}

std::vector<const EditLedger::Part*> EditLedger::waiting() const {
  std::vector<const Part*> parts;
  for (size_t e = 0; e < cursor_; ++e)
    for (const Part& part : entries_[e].parts)
      if (!part.applied && !part.dropped) parts.push_back(&part);
  return parts;
}

void EditLedger::install(Recipe recipe, std::string reason) {
  if (position_ > 0) {  // the sequence keeps its path
    const bool waits = recipe.path != path_ahead_ && recipe.layers == recipe_->layers && recipe.adapters == recipe_->adapters;
    path_ahead_ = std::exchange(recipe.path, recipe_->path);
    if (waits) return;
  } else {
    path_ahead_ = path_of_sequence_ = recipe.path;
  }
  if (epoch_used_) {
    finish_epoch();
    reasons_.clear();
    recipe.epoch = recipe_->epoch + 1;
  }
  reasons_.push_back(std::move(reason));
  epoch_used_ = false;
  recipe_ = std::make_shared<const Recipe>(std::move(recipe));
  if (newest_.first_token != position_) epochs_.push_back(std::make_shared<const Epoch>(std::move(newest_)));
  newest_ = {.epoch = recipe_->epoch, .sequence = sequence_, .first_token = position_, .recipe = recipe_};
  epoch_stale_ = true;
  shared_epochs_.reset();
}

void EditLedger::finish_epoch() {
  if (!epoch_stale_) return;
  epoch_stale_ = false;
  newest_.sentence = joined(reasons_);
  for (Edit& edit : edits_of(*recipe_, plan_)) newest_.edits.push_back({std::move(edit), std::nullopt});
}

const Epoch& EditLedger::current_epoch() {
  finish_epoch();
  return newest_;
}

SharedList<Epoch> EditLedger::epochs() {
  finish_epoch();
  if (!shared_epochs_) {
    auto items = epochs_;
    items.push_back(std::make_shared<const Epoch>(newest_));
    shared_epochs_.emplace(std::move(items));
  }
  return *shared_epochs_;
}

SharedList<HistoryEntry> EditLedger::history() {
  if (!shared_history_) {
    SharedList<HistoryEntry>::Items items;
    for (Entry& entry : entries_) {
      if (!entry.shared) entry.shared = std::make_shared<const HistoryEntry>(entry.shown);
      items.push_back(entry.shared);
    }
    shared_history_.emplace(std::move(items));
  }
  return *shared_history_;
}

std::vector<EditCommand> EditLedger::scheduled() const {
  std::vector<EditCommand> commands;
  if (!next_scheduled_) return commands;
  for (const Part* part : waiting()) commands.push_back(part->command);
  std::stable_sort(commands.begin(), commands.end(), [](const auto& a, const auto& b) { return *a.at_token < *b.at_token; });
  return commands;
}

}  // namespace switchyard

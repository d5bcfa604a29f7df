// The journal of edits: one JSON line per change of the history, each with its CRC, flushed to disk within a
// second, so that a crash loses at most that second. It is also the only crash mark: a journal whose
// process is gone tells of a run that did not end by itself (reliability.md, section 8).
// GUI thread; writes are short appends.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/runtime/session.h"

namespace switchyard {

// XDG_STATE_HOME/switchyard, else ~/.local/state/switchyard; made when missing. Relative values are ignored.
std::filesystem::path state_folder();

struct JournalEntry {
  std::string script_json;  // one history entry as an edit script; checked when its model is open again
  std::string author;
};

// What a crashed run left behind.
struct JournalContents {
  std::filesystem::path file;
  std::string model;  // as it was opened
  std::string prompt;
  std::vector<JournalEntry> history;
  size_t cursor = 0;                // entries [0, cursor) were in force
  std::filesystem::path recording;  // trace being written; empty: none
  int damaged_lines = 0;            // cut or with a wrong checksum; they and what follows are left out
  bool worth_restoring() const { return !history.empty() || !recording.empty(); }
};

class Journal {
 public:
  // Creates journal-<pid>.jsonl in `folder`; failing to is not fatal (the error says why nothing is kept).
  static Result<Journal> create(const std::filesystem::path& folder);
  Journal() = default;
  Journal(Journal&& other) noexcept { *this = std::move(other); }
  Journal& operator=(Journal&& other) noexcept;
  ~Journal();  // keeps the file; finish() removes it

  void model_opened(const std::string& model);  // starts over: one journal, one model
  void prompt_used(const std::string& prompt);
  void history_changed(const std::vector<HistoryEntry>& history, size_t cursor);
  void recording_to(const std::filesystem::path& trace);  // empty: stopped
  void finish();                                          // the run ended by itself
  void abandon();                                         // leaves it as a crash would (tests)

  const std::filesystem::path& file() const { return file_; }

 private:
  void append(const std::string& payload_json);

  std::filesystem::path file_;
  int descriptor_ = -1;
  std::string model_, recording_;
  std::vector<std::vector<EditCommand>> written_;  // the history as the file has it
  size_t written_cursor_ = 0;
};

// A journal whatever its end; never fails on damage, only on a file that cannot be read.
Result<JournalContents> read_journal(const std::filesystem::path& file);

// Journals in `folder` whose process no longer runs, oldest first.
std::vector<std::filesystem::path> orphaned_journals(const std::filesystem::path& folder);

}  // namespace switchyard

// The journal: what was written comes back, damage costs only what follows it, a dead process is noticed.
#include "app/session/journal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

namespace switchyard {
namespace {

HistoryEntry mute(int layer, int expert) {
  HistoryEntry entry;
  entry.edits = {{Mute{LayerSet{{layer}}, {ExpertId(expert)}}, std::nullopt}};
  return entry;
}

class JournalFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-journal-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string text(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::filesystem::path folder_;
};

TEST_F(JournalFiles, HistoryUndoAndBranchComeBack) {
  auto journal = Journal::create(folder_);
  ASSERT_TRUE(journal);
  journal->model_opened("demo");
  journal->prompt_used("Et le roi\n");
  journal->history_changed({mute(1, 2)}, 1);
  journal->history_changed({mute(1, 2), mute(3, 4)}, 2);
  journal->history_changed({mute(1, 2), mute(3, 4)}, 1);  // undo
  journal->history_changed({mute(1, 2), mute(5, 6)}, 2);  // another edit drops the undone one
  journal->recording_to("/tmp/run.moetrace.h5");
  const auto read = read_journal(journal->file());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->model, "demo");
  EXPECT_EQ(read->prompt, "Et le roi\n");
  ASSERT_EQ(read->history.size(), 2u);
  EXPECT_EQ(read->cursor, 2u);
  EXPECT_NE(read->history[1].script_json.find("\"expert\":6"), std::string::npos) << read->history[1].script_json;
  EXPECT_EQ(read->recording, "/tmp/run.moetrace.h5");
  EXPECT_EQ(read->damaged_lines, 0);
}

TEST_F(JournalFiles, NothingIsWrittenWhenNothingChanged) {
  auto journal = Journal::create(folder_);
  ASSERT_TRUE(journal);
  journal->history_changed({mute(1, 2)}, 1);
  const std::string before = text(journal->file());
  journal->history_changed({mute(1, 2)}, 1);
  EXPECT_EQ(text(journal->file()), before);
}

// A kill may cut the last line anywhere: everything before it must be there.
TEST_F(JournalFiles, EveryCutOfTheLastLineKeepsWhatCameBefore) {
  auto journal = Journal::create(folder_);
  ASSERT_TRUE(journal);
  journal->model_opened("demo");
  journal->history_changed({mute(1, 2)}, 1);
  const size_t whole = text(journal->file()).size();
  journal->history_changed({mute(1, 2), mute(3, 4)}, 2);
  const std::string all = text(journal->file());
  for (size_t cut = whole; cut < all.size() - 1; ++cut) {
    const auto file = folder_ / "cut.jsonl";
    std::ofstream(file, std::ios::binary) << all.substr(0, cut);
    const auto read = read_journal(file);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->history.size(), 1u) << "cut at " << cut;
    EXPECT_EQ(read->damaged_lines, cut > whole ? 1 : 0) << "cut at " << cut;
  }
}

TEST_F(JournalFiles, ChangedByteIsNoticedByTheChecksum) {
  auto journal = Journal::create(folder_);
  ASSERT_TRUE(journal);
  journal->history_changed({mute(1, 2)}, 1);
  std::string all = text(journal->file());
  const size_t at = all.rfind("\"expert\":2");
  ASSERT_NE(at, std::string::npos);
  all[at + 9] = '7';
  const auto file = folder_ / "changed.jsonl";
  std::ofstream(file, std::ios::binary) << all;
  const auto read = read_journal(file);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->history.empty());
  EXPECT_EQ(read->damaged_lines, 1);
}

TEST_F(JournalFiles, OnlyJournalsOfDeadProcessesAreOrphans) {
  auto mine = Journal::create(folder_);
  ASSERT_TRUE(mine);
  const pid_t child = ::fork();
  if (child == 0) {
    auto theirs = Journal::create(folder_);
    if (theirs) theirs->model_opened("demo");
    ::_exit(0);  // as a crash would: nothing is cleaned up
  }
  siginfo_t ended;
  ::waitid(P_PID, id_t(child), &ended, WEXITED | WNOWAIT);
  EXPECT_EQ(orphaned_journals(folder_).size(), 1u);  // dead already, though not collected
  ::waitpid(child, nullptr, 0);
  const auto orphans = orphaned_journals(folder_);
  ASSERT_EQ(orphans.size(), 1u);
  EXPECT_NE(orphans[0], mine->file());
  mine->finish();
  EXPECT_FALSE(std::filesystem::exists(mine->file()));
}

}  // namespace
}  // namespace switchyard

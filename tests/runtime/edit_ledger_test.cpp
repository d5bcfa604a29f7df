// The books about edits, without threads and models: history, epochs, waiting edits, drags.
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/runtime/edit_ledger.h"
#include "tests/routing/test_plan.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::Field;

const ModelPlan kPlan = test::small_plan();
const auto kStart = EditLedger::Clock::time_point{};
constexpr auto kLater = std::chrono::seconds(5);

LayerSet layer(int index) { return {{index}}; }
EditCommand now(Edit edit) { return {std::move(edit), {}}; }
EditCommand mute(ExpertId id) { return now(Mute{layer(1), {id}}); }

struct Books : EditLedger {
  Books() : EditLedger(kPlan) {}
  Result<void> add_one(EditCommand edit, EditLedger::Clock::duration after = {}) { return add({std::move(edit)}, "user", kStart + after); }
  std::vector<uint32_t> epoch_numbers() {
    std::vector<uint32_t> out;
    for (const Epoch& epoch : epochs()) out.push_back(epoch.epoch);
    return out;
  }
};

TEST(EditLedger, StartsNativeInEpochZero) {
  Books books;
  EXPECT_EQ(books.recipe()->epoch, 0u);
  EXPECT_TRUE(books.recipe()->is_identity());
  ASSERT_EQ(books.epochs().size(), 1u);
  EXPECT_TRUE(books.epochs()[0].edits.empty());
  books.undo();
  books.redo();
  EXPECT_EQ(books.cursor(), 0u);
}

TEST(EditLedger, EditsBeforeTheFirstTokenBelongToEpochZero) {
  Books books;
  ASSERT_TRUE(books.add_one(mute(3)));
  ASSERT_TRUE(books.add_one(now(TopK{{}, 1})));
  books.begin_sequence(0);
  EXPECT_EQ(books.recipe()->epoch, 0u);
  ASSERT_EQ(books.epochs().size(), 1u);
  EXPECT_EQ(books.epochs()[0].sentence, "Mute expert 3 in layer 1; Top-k 1 in all layers");
  EXPECT_EQ(books.epochs()[0].edits.size(), 2u);
  EXPECT_EQ(books.history()[0].epoch, 0u);
}

TEST(EditLedger, EditsBetweenTheSameTwoTokensMakeOneEpoch) {
  Books books;
  books.begin_sequence(0);
  books.tokens_routed(10);
  ASSERT_TRUE(books.add_one(mute(3)));
  ASSERT_TRUE(books.add_one(mute(4)));
  EXPECT_THAT(books.epoch_numbers(), ElementsAre(0, 1));
  books.tokens_routed(1);
  books.undo();
  EXPECT_THAT(books.epoch_numbers(), ElementsAre(0, 1, 2));
  const auto epochs = books.epochs();
  EXPECT_THAT(epochs, ElementsAre(Field(&Epoch::first_token, 0), Field(&Epoch::first_token, 10), Field(&Epoch::first_token, 11)));
  EXPECT_EQ(epochs[1].sentence, "Mute expert 3 in layer 1; Mute expert 4 in layer 1");
  EXPECT_EQ(epochs[2].sentence, "Undo: mute expert 4 in layer 1");
  EXPECT_THAT(epochs[2].edits, ElementsAre(mute(3)));
  EXPECT_EQ(epochs[1].recipe->layers[0].muted[4], 1);  // what was published does not change
  const auto history = books.history();
  EXPECT_EQ(history[1].first_token, 10u);
  EXPECT_EQ(history[1].epoch, 1u);
}

TEST(EditLedger, ANewSequenceStartsUnderTheRecipeInForce) {
  Books books;
  books.begin_sequence(0);
  books.tokens_routed(5);
  ASSERT_TRUE(books.add_one(mute(3)));
  books.tokens_routed(5);
  books.begin_sequence(1);
  const auto epochs = books.epochs();
  ASSERT_EQ(epochs.size(), 1u);
  EXPECT_EQ(epochs[0].epoch, 1u);
  EXPECT_EQ(epochs[0].sequence, 1u);
  EXPECT_EQ(epochs[0].first_token, 0u);
  EXPECT_THAT(epochs[0].edits, ElementsAre(mute(3)));
  // Epoch 1 has tokens (of sequence 0): an edit before the first token of this one is epoch 2.
  ASSERT_TRUE(books.add_one(mute(4)));
  EXPECT_THAT(books.epoch_numbers(), ElementsAre(2));
}

TEST(EditLedger, WaitingEditsTakeEffectAtTheirToken) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add({{Mute{layer(1), {3}}, 10}, {TopK{{}, 1}, {}}, {Mute{layer(1), {4}}, 5}}, "script", kStart));
  EXPECT_THAT(books.scheduled(), ElementsAre(EditCommand{Mute{layer(1), {4}}, 5}, EditCommand{Mute{layer(1), {3}}, 10}));
  EXPECT_EQ(books.next_scheduled(), 5u);
  EXPECT_EQ(books.recipe()->layers[0].k, 1);
  EXPECT_TRUE(books.recipe()->layers[0].muted.empty());
  ASSERT_TRUE(books.apply_due());
  EXPECT_EQ(books.recipe()->epoch, 0u);
  books.tokens_routed(5);
  ASSERT_TRUE(books.apply_due());
  EXPECT_EQ(books.recipe()->layers[0].muted[4], 1);
  EXPECT_EQ(books.next_scheduled(), 10u);
  books.tokens_routed(5);
  ASSERT_TRUE(books.apply_due());
  EXPECT_THAT(books.epoch_numbers(), ElementsAre(0, 1, 2));
  EXPECT_FALSE(books.next_scheduled());
  EXPECT_EQ(books.history()[0].sentence, "Script of 3 edits");
  EXPECT_EQ(books.history()[0].epoch, 0u);
}

TEST(EditLedger, UndoingAScriptTakesItsWaitingEditsToo) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add({{Mute{layer(1), {3}}, {}}, {Mute{layer(1), {4}}, 5}}, "script", kStart));
  books.undo();
  EXPECT_FALSE(books.next_scheduled());
  EXPECT_TRUE(books.recipe()->is_identity());
  books.tokens_routed(7);
  books.redo();  // token 5 is past: both now
  EXPECT_EQ(books.recipe()->layers[0].muted[3], 1);
  EXPECT_EQ(books.recipe()->layers[0].muted[4], 1);
  EXPECT_EQ(books.history()[0].first_token, 7u);
}

TEST(EditLedger, AScheduledEditIsShownWithTheTokenItWaitsFor) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add_one({Mute{layer(1), {3}}, 9}));
  EXPECT_FALSE(books.history()[0].applied);
  EXPECT_EQ(books.history()[0].first_token, 9u);
  EXPECT_EQ(books.history()[0].sentence, "Mute expert 3 in layer 1 from token 9");
  EXPECT_EQ(books.epochs().size(), 1u);
}

// The scheduled part of an older entry took effect after a newer entry: undo must still be exact.
TEST(EditLedger, AnUndoneEntryKeepsItsEpochUntilItIsRedone) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add_one({Mute{layer(1), {3}}, 9}));
  books.tokens_routed(9);
  ASSERT_TRUE(books.apply_due());
  EXPECT_EQ(books.history()[0].epoch, 1u);
  books.tokens_routed(1);
  books.undo();
  EXPECT_TRUE(books.history()[0].applied);
  EXPECT_EQ(books.history()[0].epoch, 1u);
  EXPECT_EQ(books.history()[0].first_token, 9u);
  books.begin_sequence(1);
  books.redo();  // token 9 lies ahead again
  EXPECT_FALSE(books.history()[0].applied);
  EXPECT_EQ(books.history()[0].epoch, 0u);
  EXPECT_EQ(books.history()[0].sequence, 1u);
  EXPECT_EQ(books.history()[0].first_token, 9u);
  books.tokens_routed(9);
  ASSERT_TRUE(books.apply_due());
  EXPECT_TRUE(books.history()[0].applied);
  EXPECT_EQ(books.history()[0].epoch, books.recipe()->epoch);
}

TEST(EditLedger, UndoIsExactWhenAnOlderScriptTookEffectInBetween) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add_one({Bias{layer(1), {3}, 2}, 5}));
  ASSERT_TRUE(books.add_one(now(Bias{layer(1), {3}, 1}), kLater));
  books.tokens_routed(5);
  ASSERT_TRUE(books.apply_due());
  EXPECT_EQ(books.recipe()->layers[0].logit_bias[3], 2);
  books.undo();  // the bias of 1
  EXPECT_EQ(books.recipe()->layers[0].logit_bias[3], 2);
  books.undo();
  EXPECT_TRUE(books.recipe()->is_identity());
}

TEST(EditLedger, ADragIsOneUndoStep) {
  Books books;
  books.begin_sequence(0);
  for (int step = 1; step <= 20; ++step) {
    ASSERT_TRUE(books.add_one(now(Bias{layer(1), {3}, float(step)}), std::chrono::milliseconds(50 * step)));
    books.tokens_routed(1);
  }
  ASSERT_EQ(books.history().size(), 1u);
  EXPECT_EQ(books.history()[0].sentence, "Bias expert 3 by +20 in layer 1");
  EXPECT_EQ(books.history()[0].first_token, 19u);
  EXPECT_EQ(books.epochs().size(), 20u);  // each value that routed a token keeps its epoch
  books.undo();
  EXPECT_TRUE(books.recipe()->is_identity());
}

TEST(EditLedger, WhatIsNoDragStaysApart) {
  Books books;
  ASSERT_TRUE(books.add_one(now(Bias{layer(1), {3}, 1})));
  ASSERT_TRUE(books.add_one(now(Bias{layer(1), {4}, 1})));                       // another expert
  ASSERT_TRUE(books.add_one(now(Bias{layer(1), {4}, 2}), kLater));               // long after
  ASSERT_TRUE(books.add({now(Bias{layer(1), {4}, 3})}, "plugin", kStart + kLater));  // another author
  ASSERT_TRUE(books.add_one(mute(5)));
  ASSERT_TRUE(books.add_one(now(Unmute{layer(1), {5}})));
  EXPECT_EQ(books.history().size(), 6u);
}

TEST(EditLedger, AScriptThatDoesNotFitChangesNothing) {
  Books books;
  ASSERT_TRUE(books.add_one(mute(3)));
  const auto refused = books.add({mute(4), now(Force{layer(1), {0, 1, 2}})}, "script", kStart);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().where, "edits[1]");
  EXPECT_EQ(books.history().size(), 1u);
  EXPECT_EQ(books.recipe()->layers[0].muted[4], 0);
}

TEST(EditLedger, DropsAWaitingEditThatNoLongerFitsAndSaysSo) {
  Books books;
  books.begin_sequence(0);
  ASSERT_TRUE(books.add_one({Mute{layer(3), {5}}, 3}));
  ASSERT_TRUE(books.add_one(now(Mute{layer(3), {0, 1, 2, 3, 4}})));
  books.tokens_routed(3);
  const auto due = books.apply_due();
  ASSERT_FALSE(due);
  EXPECT_EQ(due.error().where, "Mute expert 5 in layer 3");
  EXPECT_FALSE(books.next_scheduled());
  EXPECT_TRUE(books.apply_due());
}

TEST(EditLedger, ForgetsWhatWasUndoneWhenANewEditComes) {
  Books books;
  ASSERT_TRUE(books.add_one(mute(3)));
  ASSERT_TRUE(books.add_one(mute(4)));
  books.undo();
  ASSERT_TRUE(books.add_one(mute(5)));
  books.redo();
  EXPECT_EQ(books.history().size(), 2u);
  EXPECT_EQ(books.recipe()->layers[0].muted[4], 0);
  EXPECT_EQ(books.recipe()->layers[0].muted[5], 1);
}

// A path holds for a whole sequence: what is sent while one runs waits for the next, and so does its undo.
TEST(EditLedger, ALayerPathWaitsForTheNextSequence) {
  const std::vector<uint8_t> first{1, 2, 1, 1}, second{1, 1, 0, 1};
  Books books;
  ASSERT_TRUE(books.add_one(now(LayerPath{first})));
  books.begin_sequence(0);
  EXPECT_EQ(books.recipe()->path.passes, first) << "before the first token it is in force at once";
  EXPECT_EQ(books.recipe()->epoch, 0u);
  EXPECT_TRUE(books.history()[0].applied);
  books.tokens_routed(10);
  ASSERT_TRUE(books.add_one(now(LayerPath{second})));
  EXPECT_EQ(books.recipe()->path.passes, first);
  EXPECT_EQ(books.path_ahead().passes, second);
  EXPECT_THAT(books.epoch_numbers(), ElementsAre(0)) << "nothing changed for the tokens of this sequence";
  EXPECT_FALSE(books.history()[1].applied);
  EXPECT_TRUE(books.history()[1].at_prefill);

  ASSERT_TRUE(books.add_one(mute(3)));
  EXPECT_EQ(books.recipe()->path.passes, first) << "other edits take effect meanwhile, the path stays";
  EXPECT_EQ(books.recipe()->layers[0].muted[3], 1);
  EXPECT_THAT(books.current_epoch().edits, ElementsAre(now(LayerPath{first}), mute(3)));
  books.tokens_routed(1);

  books.begin_sequence(1);
  EXPECT_EQ(books.recipe()->path.passes, second);
  EXPECT_EQ(books.recipe()->epoch, 2u);
  EXPECT_EQ(books.recipe()->layers[0].muted[3], 1);
  EXPECT_TRUE(books.history()[1].applied);
  EXPECT_EQ(books.history()[1].epoch, 2u);
  EXPECT_EQ(books.history()[1].first_token, 0u);
  EXPECT_EQ(books.epochs()[0].sentence, "Run the layers 0, 1, 3");

  books.tokens_routed(5);
  books.move_cursor(1);  // the mute and the second path undone
  EXPECT_EQ(books.recipe()->path.passes, second) << "the running sequence keeps its path";
  EXPECT_TRUE(books.recipe()->layers.empty());
  EXPECT_EQ(books.path_ahead().passes, first);
  books.redo();
  EXPECT_EQ(books.path_ahead().passes, second);
  EXPECT_TRUE(books.history()[1].applied) << "this sequence runs it";
  books.undo();
  books.begin_sequence(2);
  EXPECT_EQ(books.recipe()->path.passes, first);
}

TEST(EditLedger, ALayerPathCannotBeginWithinASequence) {
  Books books;
  const auto refused = books.add_one({LayerPath{{1, 2, 1, 1}}, 5});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_THAT(refused.error().what, testing::HasSubstr("cannot begin at token 5"));
  EXPECT_THAT(refused.error().hint, testing::HasSubstr("next prefill"));
  EXPECT_TRUE(books.history().empty());
}

TEST(EditLedger, GoingBackKeepsThePathOfTheSequence) {
  const std::vector<uint8_t> first{1, 2, 1, 1}, second{1, 1, 0, 1};
  Books books;
  ASSERT_TRUE(books.add_one(now(LayerPath{first})));
  books.begin_sequence(0);
  books.tokens_routed(10);
  ASSERT_TRUE(books.add_one(now(LayerPath{second})));
  books.tokens_routed(5);
  const auto here = books.mark(), start = books.mark_at(0), early = books.mark_at(8);
  books.go_back(early, "Rewind");
  EXPECT_EQ(books.recipe()->path.passes, first);
  EXPECT_EQ(books.path_ahead().passes, first) << "the second path was sent later, and can be redone";
  books.redo();
  EXPECT_EQ(books.recipe()->path.passes, first);
  EXPECT_EQ(books.path_ahead().passes, second);
  books.go_back(here, "Go on");
  EXPECT_EQ(books.recipe()->path.passes, first);
  EXPECT_EQ(books.path_ahead().passes, second);
  books.go_back(start, "Rewind to token 0");
  EXPECT_EQ(books.recipe()->path.passes, first);
  books.redo();
  EXPECT_EQ(books.recipe()->path.passes, second) << "before the first token a path is in force at once";
  books.undo();
  EXPECT_EQ(books.recipe()->path.passes, first);
}

// Random histories against the plain way: replay the edits of the entries in force, in the order in which they took
// effect.
TEST(EditLedgerProperties, TheRecipeIsThatOfTheEntriesInForce) {
  std::mt19937_64 random(5);
  for (int run = 0; run < 200; ++run) {
    Books books;
    books.begin_sequence(0);
    std::vector<Edit> entries;  // one per history entry
    size_t cursor = 0;
    for (int step = 0; step < 40; ++step) {
      const auto id = ExpertId(random() % 6);
      switch (random() % 6) {
        case 0: books.undo(), cursor -= cursor > 0; break;
        case 1: books.redo(), cursor = std::min(cursor + 1, entries.size()); break;
        case 2: {
          const size_t to = random() % (entries.size() + 1);
          books.move_cursor(to), cursor = to;
          break;
        }
        case 3: books.tokens_routed(1 + random() % 3); break;
        default: {
          const Edit edit = random() % 4 == 0 ? Edit(LayerPath{{1, uint8_t(random() % 3), 1, 1}})
                            : random() % 2    ? Edit(Mute{layer(1), {id}})
                                              : Edit(Bias{{}, {id}, float(random() % 3)});
          if (!books.add_one(now(edit), kLater * step)) continue;  // would mute the last
          entries.resize(cursor);
          entries.push_back(edit);
          ++cursor;
        }
      }
      Recipe plain;
      for (size_t i = 0; i < cursor; ++i) apply(entries[i], kPlan, plain);
      ASSERT_EQ(books.recipe()->layers, plain.layers);
      ASSERT_EQ(books.path_ahead(), plain.path);
      ASSERT_EQ(books.cursor(), cursor);
      ASSERT_EQ(books.history().size(), entries.size());
      ASSERT_EQ(books.epochs().back().recipe, books.recipe());
    }
    uint64_t token = 0;
    uint32_t epoch = 0;
    for (const Epoch& e : books.epochs()) {
      if (e.first_token > 0) {
        ASSERT_GT(e.first_token, token);
        ASSERT_EQ(e.epoch, epoch + 1);
      }
      token = e.first_token, epoch = e.epoch;
    }
  }
}

}  // namespace
}  // namespace switchyard
